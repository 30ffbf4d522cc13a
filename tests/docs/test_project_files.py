"""The files that a forge and PyPI read agree with each other and with pyproject.toml."""

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import cmbench

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = {
    path.stem: yaml.load(path.read_text(), yaml.BaseLoader)  # BaseLoader: `on` stays a word
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
VERSIONS = ["3.11", "3.12", "3.13"]


def test_the_licence_is_the_official_text():
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    # https://www.apache.org/licenses/LICENSE-2.0.txt
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert PROJECT["license"] == "Apache-2.0"


def test_the_citation_names_this_version_and_repository():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == cmbench.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert [a["name"] for a in citation["authors"]] == [a["name"] for a in PROJECT["authors"]]


def test_addresses_are_of_one_repository_and_their_files_are_here():
    source = PROJECT["urls"]["Source"]
    assert all(url.startswith(source) for url in PROJECT["urls"].values())
    for url in PROJECT["urls"].values():
        file = url.removeprefix(source).partition("/main/")[2]
        assert (ROOT / file).exists()
    for page in ("CONTRIBUTING.md", "SECURITY.md"):
        found = re.findall(r"https://github.com/\w+/\w+", (ROOT / page).read_text())
        assert set(found) == {source}, page


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_linked_files_are_here(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), target


def test_the_pythons_that_are_promised_are_tested():
    named = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert named == VERSIONS
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"
    assert WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"] == VERSIONS


def test_workflows_run_targets_that_there_are():
    assert set(WORKFLOWS) == {"test", "docs", "publish"}
    makefile = (ROOT / "Makefile").read_text()
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                for target in re.findall(r"^make (\S+)", step.get("run", ""), re.M):
                    assert re.search(rf"^{target}:", makefile, re.M), target


def test_publishing_needs_no_secret_and_one_right():
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text()
    assert "secrets." not in text
    jobs = WORKFLOWS["publish"]["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["needs"] == "build"


def test_pre_commit_runs_the_tools_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    tools = set(re.findall(r"\$\(BIN\)/(\w+)", lint))
    assert {Path(hook["entry"].split()[0]).name for hook in hooks} == tools


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_the_demo_installs_no_extra(tmp_path):
    def commands(target):
        return subprocess.run(
            ["make", "-n", target, f"VENV={tmp_path / 'venv'}"], cwd=ROOT, text=True,
            capture_output=True, check=True,
        ).stdout  # fmt: skip

    assert "install" in commands("demo")
    assert ".[" not in commands("demo")
    assert ".[test]" in commands("test")
    assert ".[docs]" in commands("docs")
