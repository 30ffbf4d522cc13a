"""Options of `cmbench train` that nothing would read, or that lead nowhere, are refused at once."""

from pathlib import Path

import pytest

from cmbench.core.errors import UserError
from cmbench.run.train import run_recipes

ROOT = Path(__file__).parents[2]
EDM = ROOT / "models" / "edm" / "recipes" / "digits.yaml"
CONSISTENCY = ROOT / "models" / "consistency" / "recipes" / "digits.yaml"


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (EDM, {"start": "/no/such"}, "--start /no/such: recipe edm/digits uses no start"),
        (EDM, {"teacher": "/no/such"}, "--teacher /no/such: recipe edm/digits uses no teacher"),
        (EDM, {"data": "/no/such"}, "--data /no/such: it does not exist"),
        (CONSISTENCY, {"teacher": "/no/such"}, "weights file /no/such does not exist"),
        (CONSISTENCY, {"start": "/no/such"}, "recipe consistency/digits uses no start"),
    ],
)
def test_an_option_that_leads_nowhere_is_refused(tmp_path, recipe, options, message):
    with pytest.raises(UserError, match=message):
        run_recipes([recipe], out=tmp_path / "out", **{k: Path(v) for k, v in options.items()})
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("something else")
    with pytest.raises(UserError, match="--out .*out is a file"):
        run_recipes([EDM], out=tmp_path / "out")
    with pytest.raises(UserError, match="--out .* leads through a file"):
        run_recipes([EDM], out=tmp_path / "out" / "inside")
