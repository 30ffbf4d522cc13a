"""What `cmbench models new` writes works as it is: contract, plan, and a class of its name."""

from pathlib import Path
from typing import get_args

import pytest

from cmbench.cards.scaffold import Kind, new_model
from cmbench.core.errors import UserError
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite
from cmbench.testing.model_contract import check_model


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_new_family_holds_to_the_contract_and_plans(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = new_model("my_own", kind, tmp_path)
    assert len(files) == 5
    verdict = check_model("my_own/digits")
    assert verdict.holds, [f for f in verdict.findings if not f.holds]
    suite, source = read_suite("my_own")
    plan = make_plan(suite, source)
    assert {j.address.kind for j in plan.jobs.values()} >= {"train", "sample", "score"}
    compile((tmp_path / "tests" / "test_my_own.py").read_text(), "test", "exec")


def test_nothing_is_overwritten_and_names_are_checked(tmp_path: Path) -> None:
    new_model("mine", "denoiser", tmp_path)
    with pytest.raises(UserError, match="is there already"):
        new_model("mine", "oneshot", tmp_path)
    for bad in ("Mine", "../x", "class", "1st"):
        with pytest.raises(UserError, match="can't be a family's name"):
            new_model(bad, "denoiser", tmp_path)


def test_a_call_that_was_killed_can_be_repeated(tmp_path: Path) -> None:
    files = new_model("mine", "denoiser", tmp_path)
    texts = {file: file.read_bytes() for file in files}
    for lost in range(1, len(files)):
        for file in files[-lost:]:
            file.unlink()
        assert new_model("mine", "denoiser", tmp_path) == files
        assert {file: file.read_bytes() for file in files} == texts
    files[-1].unlink()
    files[0].write_text("# edited\n")
    with pytest.raises(UserError, match="is there already"):
        new_model("mine", "denoiser", tmp_path)
    assert files[0].read_text() == "# edited\n"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*not a folder|a folder is needed"):
        new_model("mine", "denoiser", tmp_path / "file")
