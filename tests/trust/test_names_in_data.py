"""Names and keys that data brings are never paths: nothing that lies in somebody's results runs."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.errors import UserError
from cmbench.core.loader import create, find, without_folder
from cmbench.record.schema import Record, ScoreRecord
from cmbench.store.store import Address

EVIL = """\
from pathlib import Path

from cmbench.api import Sampler

Path(__file__).with_name("ran").touch()
__all__ = ["Evil"]


class Evil(Sampler):
    def nfe(self):
        return 1

    def sample(self, denoiser, noise, labels=None):
        return noise.normal(0)
"""
SUITE = """\
suite: stranger
dataset: digits
images: {{count: 16}}
features: pixels
metrics: [frechet_distance]
runs:
  - model: oracle/gaussian
    sampler: {sampler}
"""
FORMS = (
    "/proc/self/cwd/results/stranger/evil",
    "{here}/results/stranger/evil",
    "../results/stranger/evil",
    "../../{name}/results/stranger/evil",
    "results/stranger/evil",
)


def _score(protocol: dict, key: str = "") -> dict:
    return {
        "name": "frechet_distance", "title": "FD", "value": 1.0, "error": 0.1, "count": 16,
        "higher_is_better": False, "fingerprint": "0" * 64, "protocol": protocol, "key": key,
    }  # fmt: skip


def _record(score: dict) -> dict:
    return {
        "suite": "stranger", "suite_version": 1, "cell": "c" * 16, "status": "done",
        "label": "L", "model": "oracle/gaussian", "family": "oracle", "nfe": 1, "seed": 0,
        "images": 16, "scores": [score], "identity": {}, "shards": ["0" * 64],
    }  # fmt: skip


def _results(folder: Path, record: dict, sampler: str = "euler") -> None:
    (folder / "records").mkdir(parents=True)
    (folder / "records" / f"{'c' * 16}.json").write_text(json.dumps(record))
    (folder / "suite.yaml").write_text(SUITE.format(sampler=json.dumps(sampler)))
    (folder / "evil.py").write_text(EVIL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with honest results in results/mine."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    metric = {"metric": {"name": "frechet_distance"}, "extractor": {"name": "pixels"}}
    _results(here / "results" / "mine", _record(_score(metric)))
    return here


def _form(text: str, here: Path) -> str:
    return text.format(here=here, name=here.name)


def _run(*words: str):
    return CliRunner().invoke(app, list(words))


def _never_ran(here: Path) -> bool:
    return not list(here.rglob("ran"))


@pytest.mark.parametrize("form", FORMS)
def test_a_sampler_in_a_suite_is_no_path(place, form):
    stranger = place / "results" / "stranger"
    _results(stranger, _record(_score({})), _form(form, place))
    for words in (("verify", str(stranger)), ("check", str(stranger / "suite.yaml"))):
        found = _run(*words)
        assert _never_ran(place)
        assert found.exit_code != 0
    assert "suite.yaml:8: runs[0].sampler" in found.exception.where
    assert "no name of a sampler" in found.exception.what


@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_a_record_is_no_path(place, form):
    stranger = place / "results" / "stranger"
    key = _form(form, place).replace("evil", "x")
    (stranger / "x").mkdir(parents=True)
    spec = {"metric": {"name": _form(form, place)}, "features": [], "reference": None}
    (stranger / "x" / "manifest.json").write_text(json.dumps({"spec": spec}))
    metric = {"metric": {"name": "frechet_distance"}, "extractor": {"name": "pixels"}}
    _results(stranger, _record(_score(metric, key)))
    for words in (
        ("compare", str(stranger), "results/mine"),
        ("disclose", str(stranger)),
        ("explain", f"{stranger}:c", "results/mine:c"),
    ):
        _run(*words)
        assert _never_ran(place)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        ScoreRecord.model_validate(_score(metric, key))
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        Address("score", key)


@pytest.mark.parametrize("part", ["metric", "extractor"])
@pytest.mark.parametrize("form", FORMS)
def test_a_component_in_a_record_is_no_path(place, form, part):
    stranger = place / "results" / "stranger"
    protocol = {"metric": {"name": "frechet_distance"}, "extractor": {"name": "pixels"}}
    protocol[part] = {"name": _form(form, place)}
    _results(stranger, _record(_score(protocol)))
    for words in (
        ("explain", "results/mine:c", f"{stranger}:c"),
        ("explain", f"{stranger}:c", "results/mine:c"),
        ("compare", "results/mine", str(stranger)),
        ("verify", str(stranger)),
    ):
        _run(*words)
        assert _never_ran(place)
    with pytest.raises(ValueError, match="no component's name"):
        Record.model_validate(_record(_score(protocol)))


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a.b", "a/b", "", "x" * 101, "a\n", "é", "~x", "."]
)
@pytest.mark.parametrize("kind", ["sampler", "metric", "model", "dataset", "network"])
def test_only_letters_digits_underscores_and_hyphens_are_names(kind, name):
    with pytest.raises(UserError, match=f"no name of a {kind}"):
        find(kind, name, where="suite.yaml:3")


def test_results_are_no_plugin_folder_though_one_works_in_them(place, monkeypatch):
    stranger = place / "results" / "stranger"
    _results(stranger, _record(_score({})), "evil")
    (stranger / "samplers").mkdir()
    os.replace(stranger / "evil.py", stranger / "samplers" / "evil.py")
    monkeypatch.chdir(stranger)
    monkeypatch.setenv("CMBENCH_PATH", str(stranger))
    for words in (("verify", "."), ("verify", str(stranger)), ("disclose", ".")):
        _run(*words)
        assert _never_ran(place)
    with without_folder(stranger), pytest.raises(UserError, match="no sampler named 'evil'"):
        create("sampler", "evil")
    create("sampler", "evil")  # one's own folder is trusted
    assert not _never_ran(place)
