"""The doctor tells what is there, what is missing with what brings it, and what is wrong."""

import json
from pathlib import Path

import pytest
from tiny_suite import cmbench

from cmbench.doctor import examine


def test_each_line_is_told_and_what_is_missing_has_a_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CMBENCH_DATA", raising=False)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "broken.yaml").write_text("suite: broken\n")
    found = {check.subject: check for check in examine(network=False)}
    assert found["data set digits"].state == "ok"
    assert found["data set cifar10"].state == "missing"
    assert found["suite digits_nfe"].state == "ok"
    assert found["suite broken"].state == "wrong"
    assert "assets fetch" in found["extractor inception"].fix
    assert all(check.fix for check in found.values() if check.state == "missing")


def test_a_closed_cache_is_wrong_and_the_exit_code_says_so(tmp_path: Path) -> None:
    done = cmbench(tmp_path, "doctor", "--no-network", "--json", CMBENCH_CACHE="/proc/none")
    assert done.returncode == 1
    assert {c["subject"]: c["state"] for c in json.loads(done.stdout)}["cache"] == "wrong"


def test_shared_storage_is_tried_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMBENCH_STORE", f"file://{tmp_path}/bucket")
    found = {check.subject: check for check in examine(network=False)}
    assert found["shared store"].state == "ok"
    assert "exclusive writes" in found["shared store"].detail
    assert not [f for f in (tmp_path / "bucket").rglob("*") if f.is_file()]
    monkeypatch.setenv("CMBENCH_STORE", "file:///proc/none")
    found = {check.subject: check for check in examine(network=False)}
    assert found["shared store"].state == "wrong"
