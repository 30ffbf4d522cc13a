"""Several hundred mutated suites, recipes and cards: taken, or refused with file and line.

Nothing else comes out: no traceback, no MemoryError, no hang. `suite_fuzz.py` counts more of them.
"""

import collections

import pytest
from suite_fuzz import BOMB, CARDS, RECIPES, SUITES, mutated, outcome

WHOLE = [
    *(("suite", text) for text in SUITES),
    *(("recipe", text) for text in RECIPES),
    *(("card", text) for text in CARDS),
]


@pytest.mark.parametrize(("kind", "text"), WHOLE)
def test_what_is_mutated_is_whole(tmp_path, monkeypatch, kind, text):
    monkeypatch.chdir(tmp_path)
    assert outcome(kind, text.encode(), tmp_path) == "accepted"


def test_mutated_files_are_taken_or_refused_with_their_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = collections.defaultdict(list)
    for seed in range(400):
        kind, raw = mutated(seed)
        found[outcome(kind, raw, tmp_path)].append(seed)
    assert set(found) == {"accepted", "refused"}, {
        word: seeds for word, seeds in found.items() if word not in ("accepted", "refused")
    }
    assert len(found["accepted"]) >= 10


@pytest.mark.parametrize(("kind", "text"), WHOLE)
def test_aliases_that_stand_for_ten_billion_values_are_refused(tmp_path, monkeypatch, kind, text):
    monkeypatch.chdir(tmp_path)
    assert outcome(kind, (BOMB + text + "title: *b9\n").encode(), tmp_path) == "refused"
