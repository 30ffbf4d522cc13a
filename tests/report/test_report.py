"""Reports: pure functions of records, protocols kept apart, hostile names stay text."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cmbench.record.schema import PendingScore, Record, ScoreRecord
from cmbench.report.across import model_across
from cmbench.report.board import number, read_board
from cmbench.report.curves import quality_figure
from cmbench.report.leaderboard import as_latex, as_markdown
from cmbench.report.write import side_by_side, write_report

HOSTILE = '<script>alert(1)</script> "q" | & é🎲 $x_1$ ' + "long" * 70


def score(value, name="frechet_distance", title="FD-toy", fingerprint="a" * 64, up=False):
    return ScoreRecord(
        name=name, title=title, value=value, error=0.1, interval=(value - 0.2, value + 0.2),
        count=100, higher_is_better=up, fingerprint=fingerprint, protocol={}, key="0" * 64,
    )  # fmt: skip


def record(cell, label, nfe, scores, **more):
    return Record(
        suite="toy", suite_version=1, cell=cell, status=more.pop("status", "done"), label=label,
        model="m/c", family="m", nfe=nfe, seed=0, images=100, shape=(1, 8, 8), scores=scores, **more,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "toy"
    (root / "records").mkdir(parents=True)
    (root / "samples").mkdir()
    rows = [
        record("c1", "EDM", 1.0, [score(9.0), score(0.5, "precision", "precision", up=True)]),
        record("c2", "EDM", 35.0, [score(2.0), score(0.9, "precision", "precision", up=True)]),
        record("c3", HOSTILE, 1.0, [score(2.1), score(0.7, "precision", "precision", up=True)]),
        record("c4", HOSTILE, 2.0, [score(5.0, fingerprint="b" * 64)],
               pending_scores=[PendingScore(name="fid", title="FID", reason="no weights", command="fetch it")]),
        record("c5", "late", None, [], status="pending", reason="no data", command="get data"),
        record("c6", "bad", None, [], status="failed", reason="NaN <b>"),
    ]  # fmt: skip
    for row in rows:
        (root / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
        Image.new("L", (64, 64), 99).save(root / "samples" / f"{row.cell}.png")
    (root / "suite.yaml").write_text("suite: toy\ntitle: Toys\n")
    speed = {"seconds_per_image": 0.01, "batch": 1, "device": "cpu"}
    (root / "speed.json").write_text(json.dumps(dict.fromkeys(("c1", "c2", "c3", "c4"), speed)))
    return root


def test_protocols_never_share_a_column(folder):
    board = read_board(folder)
    assert [(c.name, c.fingerprint[0]) for c in board.columns if c.name == "frechet_distance"] == [
        ("frechet_distance", "a"),
        ("frechet_distance", "b"),
    ]


def test_what_cannot_be_told_from_the_best_is_marked_with_it(folder):
    board = read_board(folder)
    # 2.0 and 2.1 with standard errors 0.1: their difference is 0.7 of its standard error.
    assert board.best(board.columns[0]) == {"c2", "c3"}


def test_the_same_records_give_the_same_bytes(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    write_report(folder)
    write_report(copy)
    files = sorted(f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    assert all((folder / f).read_bytes() == (copy / f).read_bytes() for f in files)
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "report.html"} <= {
        str(f) for f in files
    }
    assert any(f.suffix == ".svg" for f in files)


def test_pending_and_failed_cells_are_listed_with_their_reasons(folder):
    text = as_markdown(read_board(folder))
    for wanted in ("no data", "`get data`", "NaN &lt;b&gt;", "FID: pending: no weights"):
        assert wanted in text
    assert "<script>" not in text


def test_the_page_needs_no_network_and_hostile_names_stay_text(folder):
    write_report(folder)
    page = (folder / "report.html").read_text("utf-8")
    assert "<script>alert" not in page
    assert html.escape("<script>alert(1)</script>", quote=False) in page
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)


def test_latex_is_escaped(folder):
    text = as_latex(read_board(folder))
    assert r"\&" in text
    assert r"\$x\_1\$" in text
    assert text.count(r"\\") == 5


def test_suites_side_by_side_keep_their_tables(folder):
    text = side_by_side([folder, folder])
    assert text.count("# Toys") == 2


def test_an_empty_folder_is_told(tmp_path):
    from cmbench.core.errors import UserError

    with pytest.raises(UserError, match="holds no results"):
        write_report(Path(tmp_path))


def test_many_labels_are_all_in_tables_and_the_leading_ones_in_plots(tmp_path):
    root = tmp_path / "many"
    (root / "records").mkdir(parents=True)
    (root / "samples").mkdir()
    for i in range(60):
        for nfe in (1.0, 2.0):
            row = record(
                f"c{i}-{nfe:g}", f"m{i:02}", nfe, [score(60 + i - nfe if i < 40 else i - 39.0)]
            )
            (root / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
            Image.new("L", (64, 64), 99).save(root / "samples" / f"{row.cell}.png")
    write_report(root)
    board = read_board(root)
    # m40 to m59 have values of 1 to 20; of the others m00 to m39, 58 and more.
    assert board.leading() == [f"m{i:02}" for i in range(40, 48)]
    assert board.leading(most=24) == [f"m{i:02}" for i in (*range(4), *range(40, 60))]
    drawn = (root / "plots" / "fd-toy_against_nfe.svg").read_text()
    assert "8 of 60 lines" in drawn
    assert ("m39<" in drawn, "m40<" in drawn, "m47<" in drawn) == (False, True, True)
    assert all(f"| m{i:02} |" in (root / "leaderboard.md").read_text() for i in range(60))
    page = (root / "report.html").read_text()
    assert "8 of 60 that lead" in page
    assert page.count("<img src=") == 24 * 2 + 1


def test_what_asks_no_network_is_a_level_in_plots_against_nfe(tmp_path):
    root = tmp_path / "start"
    (root / "records").mkdir(parents=True)
    rows = [
        record("c0", "start", 0.0, [score(9.0)]),
        record("c1", "cold", 1.0, [score(5.0)]),
        record("c2", "cold", 8.0, [score(3.0)]),
    ]
    for row in rows:
        (root / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
    board = read_board(root)
    figure = quality_figure(board, board.columns[0], against="NFE")
    level, *_ = [line for line in figure.axes[0].lines if line.get_label() == "no call"]
    assert list(level.get_ydata()) == [9.0, 9.0]
    assert figure.axes[0].get_xlim()[0] > 0


def test_best_of_k_stands_beside_the_number_everywhere(folder):
    chosen = {"cell": "c3", "label": HOSTILE, "nfe": 1, "score": "FD-toy", "gain": 0.85}
    rows = [
        chosen | {"tried": 3, "searched": 0, "held_out": False},
        chosen | {"cell": "c1", "tried": 1, "searched": 11, "held_out": True},
        chosen | {"cell": "c2", "tried": 1, "searched": 0, "held_out": True},
    ]
    (folder / "selection.json").write_text(json.dumps(rows))
    board = read_board(folder)
    text = as_markdown(board)
    assert f"| **{number(score(2.1))}** (best of 3) |" in text
    assert f"| {number(score(9.0))} (best of 11 searched, held-out seed) |" in text
    assert f"| **{number(score(2.0))}** |" in text
    bold = number(score(2.1)).replace("±", r"$\pm$")
    assert f"\\textbf{{{bold}}} (best of 3)" in as_latex(board)
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert '<a class="rank" href="#selection">best of 3</a>' in page
    assert page.count('<a class="rank"') == 2
    across = as_markdown(model_across([folder], "m/c"))
    assert "(best of 3)" in across
    assert "(best of 11 searched, held-out seed)" in across


def test_no_number_is_minus_nought():
    assert number(score(-0.001)) == "0.0 ± 0.2"
    assert number(score(-1.5)).startswith("-1.5")
