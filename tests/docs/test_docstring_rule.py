"""The rule that refuses docstring fragments accepts plain sentences and names each fragment."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "check_docstrings.py"

spec = importlib.util.spec_from_file_location("check_docstrings", SCRIPT)
rule = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rule)

SENTENCES = [
    "Returns the squared distance (B,).",
    "Sum of the feature rows (n, d).",
    "The empty sum, neutral under `merge`.",
    "One evaluation per step.",
    "D(x; sigma) for states x (B, C, H, W).",
    "`family/card` of a card.",
    "A plan: its cells and jobs.",
]
FRAGMENTS = {
    "One.": "is a single word",
    "1.": "is a single word",
    "Of rows (n, d).": "begins with 'Of'",
    "As the file has it.": "begins with 'As'",
    "By image, in bits.": "begins with 'By'",
    "For JSON.": "begins with 'For'",
    "From x at one level to the next.": "begins with 'From'",
    "What samplers share.": "begins with 'What'",
    "How a run ended.": "begins with 'How'",
    "Whether a job is done.": "begins with 'Whether'",
}


@pytest.mark.parametrize("docstring", SENTENCES)
def test_sentences_and_noun_phrases_pass(docstring):
    assert rule.fragment(docstring) is None


@pytest.mark.parametrize("docstring", FRAGMENTS)
def test_fragments_are_refused_with_their_reason(docstring):
    assert rule.fragment(docstring).startswith(FRAGMENTS[docstring])


def _run(*arguments, cwd=ROOT):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_each_fragment_is_printed_with_its_line(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "rows.py").write_text(
        '"""Feature rows."""\n\n\nclass Rows:\n    """Of images."""\n\n'
        '    async def count(self):\n        """Many."""\n'
    )
    run = _run("room", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stdout.splitlines() == [
        "room/rows.py:4: docstring of Rows begins with 'Of': name the thing first: 'Of images.'",
        "room/rows.py:7: docstring of count is a single word: 'Many.'",
    ]


@pytest.mark.parametrize("decorator", ["override", "typing.override"])
def test_overrides_are_not_read(tmp_path, decorator):
    method = f'    @{decorator}\n    def nfe(self):\n        """One."""\n'
    (tmp_path / "room.py").write_text(f'"""A sampler."""\n\n\nclass One:\n{method}')
    assert _run("room.py", cwd=tmp_path).returncode == 0


def test_a_folder_that_is_not_there_is_an_error():
    run = _run("cmbench/no_such_room")
    assert run.returncode == 1
    assert "no folder or file 'cmbench/no_such_room'" in run.stderr


def test_what_is_exempt_is_there():
    assert [room for room in rule.EXEMPT if not (ROOT / room).exists()] == []


def test_the_repository_holds_no_fragments():
    run = _run("cmbench", "models", "benchmarks", "examples")
    assert run.returncode == 0, run.stdout
