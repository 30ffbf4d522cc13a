"""The keys of all cells and jobs of every shipped suite: moving code must not change them.

A changed key makes finished work be computed again, so a change must be meant:
`python tests/suite/test_shipped_keys.py` writes shipped_keys.json anew.
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from cmbench.core.loader import bundled_root
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

PINNED = Path(__file__).with_name("shipped_keys.json")
SUITES = sorted(path.stem for path in (bundled_root() / "suites").glob("*.yaml"))


def keys_of(suite):
    plan = make_plan(*read_suite(suite))
    jobs = sorted(f"{address.kind} {address.key}" for address in plan.jobs)
    return {
        "cells": [cell.id[:16] for cell in plan.cells],
        "jobs": dict(sorted(Counter(address.kind for address in plan.jobs).items())),
        "jobs_sha256": hashlib.sha256("\n".join(jobs).encode()).hexdigest(),
        "fingerprints": dict(sorted(plan.fingerprints.items())),
    }


@pytest.mark.parametrize("suite", SUITES)
def test_keys_of_shipped_suites_are_pinned(suite, monkeypatch, tmp_path):
    monkeypatch.setenv("CMBENCH_OFFLINE", "1")
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("CMBENCH_DATA", raising=False)
    assert keys_of(suite) == json.loads(PINNED.read_text())[suite]


if __name__ == "__main__":
    os.environ["CMBENCH_OFFLINE"] = "1"
    PINNED.write_text(json.dumps({s: keys_of(s) for s in SUITES}, indent=1) + "\n")
