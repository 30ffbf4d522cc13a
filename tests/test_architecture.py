"""Who may import whom: parsed from the sources, so that layers stay layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "core": 0,
    "denoise": 1, "features": 1, "degradations": 1, "datasets": 1, "record": 1, "store": 1,
    "samplers": 2, "nets": 2, "stats": 2, "assets": 2,
    "distances": 3, "metrics": 3, "released": 3, "report": 3,
    "train": 4,
    "cards": 5,
    "suite": 6, "testing": 6,
    "engine": 7, "api": 7,
    "audit": 8, "external": 8, "notebook": 8,
    "run": 9, "doctor": 9,
    "cli": 10,
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


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_room_has_a_layer():
    rooms = {module_name(p).split(".")[1] for p in SOURCES if p.parent != ROOT / "cmbench"}
    assert rooms <= set(LAYERS)


def circle(graph):
    """A path that comes back to where it began, or None; found by depth-first search."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        path.append(node)
        found = next((c for c in map(visit, sorted(graph.get(node, ()))) if c), None)
        path.pop()
        done.add(node)
        return found

    return next((c for c in map(visit, sorted(graph)) if c), None)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def graph_of_modules():
    modules = {module_name(path): path for path in SOURCES}
    graph = {}
    for name, path in modules.items():
        nodes = [
            n
            for n in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(n, ast.ImportFrom)
        ]
        deep = {f"{n.module}.{a.name}" for n in nodes for a in n.names} & set(modules)
        graph[name] = (deep | {n.module for n in nodes} & set(modules)) - {name}
    return graph


def test_no_file_and_no_room_imports_in_a_circle():
    graph = graph_of_modules()
    assert circle(graph) is None
    rooms = {}
    for name, imported in graph.items():
        if "." not in name:
            continue  # the package itself brings the notebook's functions when they are asked for
        room = name.split(".")[1]
        inner = {other.split(".")[1] for other in imported if "." in other}
        rooms.setdefault(room, set()).update(inner - {room})
    assert circle(rooms) is None


REPORT_READS = {"core", "record", "stats", "report"}


def test_the_report_is_a_function_of_records():
    graph = graph_of_modules()
    read = {o.split(".")[1] for n, i in graph.items() if n.startswith("cmbench.report") for o in i}
    assert read <= REPORT_READS


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
    "module", ["cmbench.cli.main", "cmbench.report.write", "cmbench.core.loader"]
)
def test_no_torch_where_it_is_not_needed(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_catch_all_modules():
    names = {p.stem for p in SOURCES}
    assert not names & {"utils", "helpers", "misc", "common", "manager"}
