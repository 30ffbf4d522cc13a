"""Published numbers beside measured ones: same metric, same NFE, told in standard errors."""

import csv
import io
import re

import pytest

from cmbench.record.schema import PendingScore, PublishedScore, Record, ScoreRecord
from cmbench.report.board import read_board
from cmbench.report.leaderboard import as_csv, as_markdown
from cmbench.report.published import published_beside
from cmbench.report.write import write_report
from cmbench.stats.rows import rows_of

INCEPTION, PIXELS = {"extractor": {"name": "inception"}}, {"extractor": {"name": "pixels"}}


def score(name, title, value, error=0.05, protocol=INCEPTION):
    interval = (value - 2 * error, value + 2 * error) if error else None
    return ScoreRecord(
        name=name, title=title, value=value, error=error, interval=interval, count=50_000,
        higher_is_better=False, fingerprint=title.replace(" ", "-").ljust(64, "x"), protocol=protocol,
    )  # fmt: skip


def printed(metric, value, nfe, source="CM Table 1"):
    return PublishedScore(metric=metric, value=value, nfe=nfe, source=source)


def record(cell, nfe, scores, published=(), **more):
    return Record(
        suite="toy", suite_version=1, cell=cell, status=more.pop("status", "done"),
        label=more.pop("label", "CD | LPIPS"), model="m/c", family="m", nfe=nfe, seed=0,
        images=50_000, sampler={"name": "multistep"}, scores=scores, published=list(published), **more,
    )  # fmt: skip


TABLE = (
    printed("fid", 3.55, 1),
    printed("fid", 2.93, 2),
    printed("inception_score", 9.75, 2, source="CM Table 1 <IS>"),
)


@pytest.fixture
def folder(tmp_path):
    def write(*records):
        (tmp_path / "toy" / "records").mkdir(parents=True, exist_ok=True)
        for row in records:
            (tmp_path / "toy" / "records" / f"{row.cell}.json").write_text(row.model_dump_json())
        return tmp_path / "toy"

    return write


def pairs(*records):
    return [
        (p.record.cell, p.score.name, p.published.value, round(p.difference, 6), p.errors)
        for p in published_beside(rows_of(records))
    ]


def test_only_the_same_metric_at_the_same_nfe_stands_beside():
    fid = score("frechet_distance", "FID", 3.65)
    found = pairs(
        record("one", 1.0, [fid, score("inception_score", "Inception Score", 9.4)], TABLE),
        record("two", 2.0, [fid], TABLE),
        record("three", 3.0, [fid], TABLE),
        record("half", 1.5, [fid], TABLE),
        record("none", 1.0, [fid]),
    )
    assert [row[:4] for row in found] == [
        ("one", "frechet_distance", 3.55, 0.1),
        ("two", "frechet_distance", 2.93, 0.72),
    ]
    assert found[0][4] == pytest.approx(2.0)
    assert found[1][4] == pytest.approx(14.4)


@pytest.mark.parametrize(
    ("name", "title"),
    [("frechet_distance", "FD-EffNet"), ("inception_score", "Inception Score"), ("kid", "KID")],
)
def test_other_features_never_stand_beside_a_published_number(name, title):
    """Their titles may be the same: the extractor of the protocol decides."""
    wide = [printed(m, 1.0, 1) for m in ("fid", "inception_score", "kid")]
    measured = score(name, title, 1.0, protocol=PIXELS)
    assert pairs(record("a", 1.0, [measured], wide)) == []


def test_a_distance_of_another_space_stands_beside_its_own_name():
    measured = score("frechet_distance", "FD-DINOv2", 200.0, error=2.0, protocol=PIXELS)
    found = pairs(record("a", 1.0, [measured], [printed("fd_dinov2", 198.51, 1)]))
    assert found[0][2:4] == (198.51, 1.49)


def test_without_an_error_the_difference_stands_alone():
    ((*_, difference, errors),) = pairs(
        record("a", 1.0, [score("frechet_distance", "FID", 3.0, error=None)], TABLE)
    )
    assert (difference, errors) == (-0.55, None)


def full(folder):
    return folder(
        record("a", 1.0, [score("frechet_distance", "FID", 3.65)], TABLE),
        record("b", 2.0, [score("frechet_distance", "FID", 2.88),
                          score("inception_score", "Inception Score", 9.70)], TABLE),
        record("c", 4.0, [score("frechet_distance", "FID", 2.8)], TABLE),
        record("d", None, [], TABLE, status="pending", label="late", reason="asset x is not here",
               command="cmbench assets fetch x"),
        record("e", None, [], TABLE, status="pending", label="late", reason="asset x is not here",
               command="cmbench assets fetch x"),
    )  # fmt: skip


def test_markdown_names_the_source_and_the_difference_in_errors(folder):
    text = as_markdown(read_board(full(folder)))
    section = text.split("## Published beside measured")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| CD")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert [c[2:5] + c[6:] for c in cells] == [
        ["1", "FID", "3.55", "+0.1", "+2.0", "CM Table 1"],
        ["2", "FID", "2.93", "-0.05", "-1.0", "CM Table 1"],
        ["2", "Inception Score", "9.75", "-0.05", "-1.0", "CM Table 1 &lt;IS&gt;"],
    ]
    assert cells[0][:2] == [r"CD \| LPIPS", "multistep"]
    assert "standard errors of the measured number" in section


def test_nothing_published_leaves_no_section(folder):
    place = folder(record("a", 1.0, [score("frechet_distance", "FID", 3.65)]))
    assert "Published" not in as_markdown(read_board(place))
    write_report(place)
    assert "Published beside" not in (place / "report.html").read_text("utf-8")


def test_the_spreadsheet_has_both_and_what_waits_with_its_command(folder):
    place = full(folder)
    extra = record(
        "f", 8.0, [score("frechet_distance", "FID", 3.0)],
        [printed("fid", 2.0, 8), printed("fid", 2.5, 8, source="a second")],
        pending_scores=[PendingScore(name="kid", title="KID", reason="why", command="bring it")],
    )  # fmt: skip
    folder(extra)
    rows = list(csv.DictReader(io.StringIO(as_csv(read_board(place)))))
    by = {(r["cell"], r["score"]): r for r in rows}
    one = by["a", "frechet_distance"]
    assert (one["published"], one["published_source"]) == ("3.55", "CM Table 1")
    assert float(one["difference"]) == pytest.approx(0.1)
    assert float(one["difference_in_errors"]) == pytest.approx(2.0)
    assert by["c", "frechet_distance"]["published"] == ""
    assert by["f", "frechet_distance"]["published"] == "2.0; 2.5"
    assert by["f", "kid"]["command"] == "bring it"
    assert (by["d", ""]["status"], by["d", ""]["command"]) == ("pending", "cmbench assets fetch x")
    assert len({len(r) for r in csv.reader(io.StringIO(as_csv(read_board(place))))}) == 1


def test_the_page_shows_both_and_what_waits(folder):
    place = full(folder)
    write_report(place)
    page = (place / "report.html").read_text("utf-8")
    section = page.split('id="published"')[1].split("</table>")[0]
    cells = r"<t[dh][^>]*>(.*?)</t[dh]>"
    found = [re.findall(cells, row) for row in section.split("<tr>")[2:]]
    assert [row[4] for row in found] == ["3.55", "2.93", "9.75"]
    assert [row[6:8] for row in found] == [["+0.1", "+2.0"], ["-0.05", "-1.0"], ["-0.05", "-1.0"]]
    assert found[2][8] == "CM Table 1 &lt;IS&gt;"
    assert "<code>cmbench assets fetch x</code>" in page


def test_cells_that_wait_for_the_same_are_told_once_with_their_number(folder):
    text = as_markdown(read_board(full(folder)))
    assert text.count("`cmbench assets fetch x`") == 1
    assert "- late (multistep), 2 cells: pending: asset x is not here" in text
