"""The table of the field: methods by number of evaluations, in the suite's order and groups."""

import csv
import io
import re

import pytest

from cmbench.record.schema import PublishedScore, Record, ScoreRecord, Training
from cmbench.report.board import number, read_board
from cmbench.report.grids import sample_sheet
from cmbench.report.leaderboard import as_markdown, tables
from cmbench.report.pivot import Pivot, pivots
from cmbench.report.published import published_beside
from cmbench.report.write import write_report

INCEPTION = {"extractor": {"name": "inception"}, "weights": "6726825d" + "0" * 56}
SUITE = """\
suite: toy
title: Toys
runs:
  - {model: m/teacher, label: EDM, group: diffusion, nfe: [1, 35]}
  - {model: m/cd, label: "CD ({distance})", group: distillation, train: {distance: [l2, l1]}, nfe: [1, 2]}
  - {model: m/late, label: late, group: other}
"""


def record(label, nfe, value, *, error=0.1, model="m/cd", axes=None, **more):
    interval = more.pop("interval", ((value or 0) - 2.3 * error, (value or 0) + 2.3 * error))
    score = ScoreRecord(
        name="frechet_distance", title="FID", value=value or 0, error=error, interval=interval,
        count=more.pop("count", 50_000), higher_is_better=False, fingerprint="a" * 64,
        protocol=more.pop("protocol", INCEPTION),
    )  # fmt: skip
    return Record(
        suite="toy", suite_version=1, cell=re.sub(r"[^A-Za-z0-9]", "_", f"{label}{nfe}"), label=label, nfe=nfe,
        status=more.pop("status", "done"), model=model, family="m", axes=axes or {}, seed=0,
        images=50_000, scores=[score] if value else [], **more,
    )  # fmt: skip


PRINTED = [PublishedScore(metric="fid", value=3.55, nfe=1, source="CM"),
           PublishedScore(metric="fid", value=2.93, nfe=2, source="CM")]  # fmt: skip
ROWS = [
    record("EDM", 1, 9.0, model="m/teacher", parameters=2_000_000),
    record("EDM", 35, 2.0, model="m/teacher", parameters=2_000_000),
    record("CD (l1)", 1, 4.05, axes={"distance": "l1"}, published=PRINTED),
    record("CD (l1)", 2, 3.5, axes={"distance": "l1"}, published=PRINTED),
    record("CD (l2)", 1, 4.1, axes={"distance": "l2"}, parameters=1_000_000),
    record("CD (l2)", 2, 3.0, axes={"distance": "l2"}, parameters=1_000_000),
]


@pytest.fixture
def board(tmp_path):
    def make(*rows, suite=SUITE):
        (tmp_path / "records").mkdir()
        for row in rows:
            (tmp_path / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
        (tmp_path / "suite.yaml").write_text(suite)
        return read_board(tmp_path)

    return make


def grid(pivot):
    return {line.name: [cell.text for cell in line.cells] for line in pivot.lines}


def test_methods_stand_in_the_suite_s_order_by_their_groups(board):
    (pivot,) = pivots(board(*ROWS), 1)
    assert pivot.heads == ["1", "2", "35"]
    assert [(line.name, line.group) for line in pivot.lines] == [
        ("EDM", "diffusion"), ("CD (l2)", "distillation"), ("CD (l1)", "distillation"),
    ]  # fmt: skip
    assert grid(pivot)["EDM"] == ["9.0 ± 0.2", "", "2.0 ± 0.2"]
    assert [line.costs for line in pivot.lines] == [["2"], ["1"], ["–"]]


def test_the_best_of_each_column_is_marked_with_what_can_not_be_told_from_it(board):
    (pivot,) = pivots(board(*ROWS), 1)
    marked = {line.name: [cell.best for cell in line.cells] for line in pivot.lines}
    # 4.05 and 4.1 with errors of 0.1 are level; a column of one method marks nothing.
    assert marked == {
        "EDM": [False, False, False], "CD (l2)": [True, True, False], "CD (l1)": [True, False, False],
    }  # fmt: skip


def test_ties_of_constants_mark_nothing(board):
    rows = [record(name, 1, 1e-9, error=0.0) for name in "abc"]
    found = board(*rows, suite="suite: toy")
    assert not any(cell.best for line in pivots(found, 1)[0].lines for cell in line.cells)
    assert "**" not in as_markdown(found)


def test_published_numbers_stand_beside_where_they_are_of_the_same(board):
    (pivot,) = pivots(board(*ROWS), 1)
    line = next(line for line in pivot.lines if line.name == "CD (l1)")
    assert [cell.published for cell in line.cells] == ["3.55", "2.93", ""]
    assert "Small: what the authors printed." in pivot.note


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"count": 1000}, "1,000 images, published: 50,000"),
        ({"protocol": INCEPTION | {"weights": "f" * 64}}, "other weights of Inception"),
        ({"protocol": INCEPTION | {"reference": {"dataset": {"name": "x", "split": "test"}}}},
         "another reference: the test split"),
        ({"identity": {"weights": {"train": "k"}}}, "trained here, not the authors' weights"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_says_why_and_has_no_difference(board, change, why):
    found = board(record("CD", 1, 4.0, published=PRINTED, **change), *ROWS[:2])
    (pair,) = published_beside(found.done)
    assert (pair.why_not, pair.difference, pair.errors_text) == (why, None, "–")
    assert why.replace("'", "'") in as_markdown(found)
    assert not any(
        cell.published for p in pivots(found, 1) for line in p.lines for cell in line.cells
    )


def test_published_numbers_show_before_their_model_is_measured(board):
    late = record("late", None, None, model="m/late", status="pending", published=PRINTED)
    (pivot,) = pivots(board(*ROWS[:2], ROWS[5], late), 1)
    line = pivot.lines[-1]
    assert (line.name, line.measured, line.group) == ("m/late", False, "published")
    assert [cell.published for cell in line.cells] == ["3.55", "2.93", ""]


def test_many_numbers_of_evaluations_leave_those_that_methods_share(board):
    rows = [
        record("EDM", n, 10.0 - n / 10, model="m/teacher") for n in (1, 3, 5, 7, 9, 11, 13, 35)
    ]
    rows += [record("CD (l2)", n, 5.0) for n in (1, 2)] + [
        record("CD (l1)", n, 6.0) for n in (1, 2)
    ]
    (pivot,) = pivots(board(*rows), 1)
    assert pivot.heads == ["1", "2", "other NFE"]
    assert grid(pivot)["EDM"] == ["9.9 ± 0.2", "", "6.5 ± 0.2 at 35"]
    assert "without a column" in pivot.note


def test_the_table_is_in_every_format(board):
    found = board(*ROWS)
    texts = tables(found)
    assert "| *distillation* |  |  |  |  |" in texts["leaderboard.md"]
    assert (
        "| CD (l1) | **4.0 ± 0.2** <sub>3.55</sub> | 3.5 ± 0.2 <sub>2.93</sub> |"
        in texts["leaderboard.md"]
    )
    assert r"\multicolumn{5}{l}{\emph{distillation}} \\" in texts["field.tex"]
    assert r"\textbf{4.0 $\pm$ 0.2} \textcolor{gray}{3.55}" in texts["field.tex"]
    rows = list(csv.DictReader(io.StringIO(texts["field.csv"])))
    assert (rows[2]["method"], rows[2]["1"], rows[2]["1 published"]) == (
        "CD (l1)", "4.0 ± 0.2", "3.55",
    )  # fmt: skip


def test_skewed_intervals_are_printed_as_intervals():
    score = record("a", 1, 0.02, interval=(0.01, 0.06)).scores[0]
    assert number(score) == "0.02 (0.01 to 0.06)"
    even = record("a", 1, 0.02, interval=(0.0, 0.042)).scores[0]
    assert number(even) == "0.02 ± 0.02"


def test_seeds_are_one_row_of_every_table_and_one_picture(board, tmp_path):
    rows = [
        record("CD (l2)", 1, 4.0 + s / 10).model_copy(update={"seed": s, "cell": f"s{s}"})
        for s in range(3)
    ]
    found = board(*rows, *ROWS[:2])
    assert len(found.done) == 3
    assert "| CD (l2) | 1 | 3 seeds |" in as_markdown(found)
    written = csv.DictReader(io.StringIO(tables(found)["leaderboard.csv"]))
    (row,) = [row for row in written if row["label"] == "CD (l2)"]
    assert (row["seed"], row["seeds"], row["trainings"]) == ("0; 1; 2", "3", "1")
    write_report(tmp_path)
    assert "sampling over 3 seeds" in (tmp_path / "report.html").read_text()
    assert sample_sheet(found, tmp_path) is None


def test_teachers_lead_and_lines_that_lead_at_few_evaluations_stay(board):
    taught = Training(recipe="r", recipe_digest="d", images=1, steps=1, evaluations_per_image=3.0,
                      teacher="m/teacher")  # fmt: skip
    rows = [record("EDM", 64, 50.0, model="m/teacher")]
    rows += [record(f"s{i:02}", 1, 10.0 + i, training=taught) for i in range(12)]
    rows += [record(f"l{i:02}", 32, 1.0 + i / 2) for i in range(12)]
    found = board(*rows, suite="suite: toy")
    assert found.teachers == {"EDM"}
    assert found.leading() == ["EDM", "l00", "l01", "l02", "l03", "s00", "s01", "s02"]
    assert isinstance(pivots(found, 1)[0], Pivot)


def test_published_numbers_show_before_anything_is_measured(board, tmp_path):
    late = record("late", None, None, model="m/late", status="pending", published=PRINTED)
    found = board(late)
    section = as_markdown(found).split("## Published, waiting to be measured")[1]
    assert "| m/late | fid | 1 | 3.55 | CM |" in section
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert '<td class="published">2.93</td>' in page
