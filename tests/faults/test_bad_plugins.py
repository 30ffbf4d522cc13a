"""A plugin that breaks as it is read, imported or made: it is named, and the others go on."""

import pytest
from typer.testing import CliRunner

from cmbench.cards.cards import survey_cards
from cmbench.cli.main import app
from cmbench.core.errors import UserError
from cmbench.core.loader import available, create, load

HEAD = "from cmbench.api import Sampler\n__all__ = {all}\n\n\nclass Bad(Sampler):\n"
NFE = "    def nfe(self):\n        return 1\n"
SAMPLE = "    def sample(self, denoiser, noise, labels=None):\n        return noise.normal(0)\n"
WHOLE = HEAD.format(all='["Bad"]') + NFE + SAMPLE
FAULTS = {
    "exits": ("import sys\nsys.exit(0)\n", "does not import: SystemExit: 0"),
    "raises": ("raise KeyError('x')\n", "does not import: KeyError"),
    "syntax": ("def f(:\n", "does not import: SyntaxError"),
    "zeros": ("x = 1\0\n", "does not import"),
    "number": (HEAD.format(all="5") + NFE + SAMPLE, "exactly one sampler class in __all__, found 0"),
    "objects": (HEAD.format(all="[Sampler, 3]") + NFE + SAMPLE, "found 0"),
    "absent": (HEAD.format(all='["Nobody"]') + NFE + SAMPLE, "found 0"),
    "no-nfe": (HEAD.format(all='["Bad"]') + SAMPLE, "abstract"),
    "no-json": (
        WHOLE + "    def spec(self):\n        return {'name': {1, 2}}\n", "not JSON serializable",
    ),
    "raising-spec": (WHOLE + "    def spec(self):\n        raise OSError('x')\n", "OSError: x"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with every broken sampler and one family whose cards don't read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samplers").mkdir()
    for name, (text, _) in FAULTS.items():
        (tmp_path / "samplers" / f"{name}.py").write_text(text)
    (tmp_path / "models" / "sick").mkdir(parents=True)
    (tmp_path / "models" / "sick" / "adapter.py").write_text('"""Sick."""\n')
    (tmp_path / "models" / "sick" / "cards.yaml").write_text("one:\n  recipee: x\n")
    return tmp_path


@pytest.mark.parametrize("name", FAULTS)
def test_each_is_named_with_its_file_and_the_place_that_asked(place, name):
    with pytest.raises(UserError, match=FAULTS[name][1]) as told:
        create("sampler", name, where="suite.yaml:3: runs[0].sampler")
    assert told.value.where == "suite.yaml:3: runs[0].sampler"
    assert f"{name}.py" in str(told.value)
    assert create("sampler", "heun").nfe() == 35


def test_all_are_listed_and_none_is_imported(place):
    names = {item.name for item in available("sampler")}
    assert set(FAULTS) | {"heun"} <= names


def test_a_family_whose_cards_don_t_read_is_named_and_the_others_are_listed(place):
    cards, faults = survey_cards()
    assert {"edm", "oracle"} <= {card.family for card in cards}
    assert [fault.where.partition(": ")[0].rpartition("/")[2] for fault in faults] == [
        "cards.yaml:2"
    ]
    found = CliRunner().invoke(app, ["models", "list"])
    assert found.exit_code == 0
    assert "oracle/gaussian" in found.output
    assert "cards.yaml:2: " in found.output
    assert "did you mean 'recipe'" in found.output
    listed = CliRunner().invoke(app, ["models", "list", "--json"])
    assert listed.exit_code == 0
    assert '"model": "oracle/gaussian"' in listed.stdout


def test_a_broken_file_is_not_kept_as_a_module(place):
    for _ in range(2):
        with pytest.raises(UserError, match="SystemExit"):
            load("sampler", "exits")
