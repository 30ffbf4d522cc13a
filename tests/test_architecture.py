"""Who may import whom: parsed from the sources, so that layers stay layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "core": 0,
    "denoise": 1, "nets": 1, "features": 1, "distances": 1, "degradations": 1, "datasets": 1,
    "record": 1, "assets": 1,
    "samplers": 2, "metrics": 2, "stats": 2,
    "train": 3, "suite": 4, "run": 5, "report": 6,
    "testing": 2, "api": 7, "interactive": 7, "cli": 8, "cli_models": 8, "cli_assets": 8, "cli_trust": 8,
    "cli_trust_checks": 8,
}  # fmt: skip
SOURCES = sorted((ROOT / "cmbench").rglob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def layer(module):
    parts = module.split(".")
    return LAYERS.get(parts[1]) if parts[0] == "cmbench" and len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_imports_a_higher_layer(path):
    own = layer(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return
    higher = [m for m in imports_of(path) if (layer(m) or 0) > own]
    assert not higher


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").rglob("*.py")), ids=lambda p: p.parent.name
)
def test_models_import_the_api_alone(path):
    inner = [m for m in imports_of(path) if m.startswith("cmbench") and m != "cmbench.api"]
    assert not inner


@pytest.mark.parametrize(
    "module", ["cmbench.cli", "cmbench.report.commands", "cmbench.core.loader"]
)
def test_no_torch_where_it_is_not_needed(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_catch_all_modules():
    names = {p.stem for p in SOURCES}
    assert not names & {"utils", "helpers", "misc", "common", "manager"}
