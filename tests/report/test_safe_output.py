"""A report of somebody's results writes and reads inside its folder, whole or not at all."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_results import write_toy_results
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.errors import UserError
from cmbench.record.schema import Record
from cmbench.report import stamp
from cmbench.report.escape import code, plain, printable, slug, spreadsheet, tex
from cmbench.report.leaderboard import tables
from cmbench.report.write import open_board, write_report, write_reports


def files(root: Path) -> set[str]:
    return {str(f.relative_to(root)) for f in root.rglob("*") if not f.is_dir()}


def titled(folder: Path, titles: list[str]) -> None:
    """The toy's scores under other titles, one protocol each."""
    for path in (folder / "records").glob("*.json"):
        record = json.loads(path.read_text())
        first = record["scores"][0]
        record["scores"] = [
            first | {"title": title, "fingerprint": f"{i:064x}"} for i, title in enumerate(titles)
        ]
        path.write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path):
    return write_toy_results(tmp_path / "results" / "toy")


def test_titles_are_never_paths_and_keep_what_follows_a_dot(folder, tmp_path):
    titled(folder, ["/tmp/pwn", "../../../pwn", "FD v1.2", "FD v1.3", "fd v1 2", "..", "\x1b"])
    before = files(tmp_path)
    write_report(folder)
    made = files(tmp_path) - before
    assert all(name.startswith("results/toy/") for name in made)
    plots = {Path(name).stem for name in made if name.endswith(".svg")}
    assert {"tmp_pwn_against_nfe", "pwn_against_nfe", "fd_v1_2_against_nfe", "fd_v1_3_against_nfe",
            "fd_v1_2_against_nfe_2", "against_nfe"} <= plots  # fmt: skip


def test_nothing_is_written_through_a_link(folder, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    (folder / "plots").mkdir()
    for name in ("plots/fd-toy_against_nfe.png", "leaderboard.md", "samples.png", "report.html"):
        (folder / name).symlink_to(precious)
    write_report(folder)
    assert precious.read_text() == "kept"
    assert not (folder / "samples.png").is_symlink()


def test_a_folder_of_plots_that_is_a_link_is_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        write_report(folder)
    assert files(tmp_path / "elsewhere") == set()


def test_links_to_secrets_are_not_shown(folder, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("title: hunter2")
    Image.new("L", (64, 64), 7).save(tmp_path / "private.png")
    (folder / "suite.yaml").unlink()
    (folder / "suite.yaml").symlink_to(secret)
    (folder / "samples" / "c1.png").unlink()
    (folder / "samples" / "c1.png").symlink_to(tmp_path / "private.png")
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "hunter2" not in page
    assert "EDM, 1 NFE" not in page
    CliRunner().invoke(app, ["report", str(folder), "--site", str(tmp_path / "site")])
    assert not (tmp_path / "site" / "toy" / "suite.yaml").exists()


@pytest.mark.parametrize("size", [(1, 1), (800, 1), (64, 3)])
def test_odd_sheets_of_samples_are_left_out(folder, size, capsys):
    Image.new("L", size, 7).save(folder / "samples" / "c1.png")
    (folder / "samples" / "c2.png").write_bytes(b"no picture")
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "EDM, 64 NFE" in page
    assert "EDM, 4 NFE" not in page
    assert "c2.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["<b>|x", "[a](http://x)", "![a](x)", "`x`", "a\nb", "$x$", "\x1b[31m"]
)
def test_names_stay_text_in_markdown(text):
    shown = plain(text)
    assert "\n" not in shown
    assert "\x1b" not in shown
    for opening in ("<", "[", "]", "|", "`", "$"):
        assert all(shown[i - 1] == "\\" for i, c in enumerate(shown) if c == opening)


def test_names_stay_text_elsewhere():
    assert plain("CD (digits_lpips)") == "CD (digits_lpips)"
    assert code("a`b") == "`` a`b ``"
    assert tex("[x] a\nb %") == r"{[}x{]} a b \%"
    assert spreadsheet("=cmd|' /C calc'!A0") == "'=cmd|' /C calc'!A0"
    assert [spreadsheet(v) for v in ("@SUM", "-1", "a", -1.5)] == ["'@SUM", "'-1", "a", -1.5]
    assert printable("a\u202eb\x07") == "a b"
    assert slug("FD-EffNet against NFE") == "fd-effnet_against_nfe"
    assert slug("///") == "score"
    assert len(slug("x" * 500)) == 80


def test_hostile_names_stay_text_in_every_table(folder):
    path = folder / "records" / "c1.json"
    bad = "=HYPERLINK(1)\x1b[2J\n[x](http://y) `z` \\\\ "
    record = json.loads(path.read_text())
    record["label"], record["sampler"] = bad, {"name": bad}
    record["scores"][0]["title"] = bad
    path.write_text(json.dumps(record))
    texts = tables(open_board(folder))
    assert not any("\x1b" in text for text in texts.values())
    rows = list(csv.DictReader(io.StringIO(texts["leaderboard.csv"])))
    assert all(
        not row["label"].startswith("=") and not row["title"].startswith("=") for row in rows
    )
    assert "\n[" not in texts["leaderboard.tex"]
    assert "](" not in texts["leaderboard.md"].replace("\\](", "")


def test_unchanged_suites_are_skipped_among_many(folder, tmp_path):
    other = write_toy_results(tmp_path / "results" / "other")
    told = []

    def tell(place, left, written):
        told.append((place.name, written))

    write_reports([folder, other], tell)
    write_reports([folder, other], tell)
    (other / "leaderboard.md").write_text("edited")
    write_reports([folder, other], tell)
    speeds = json.loads((folder / "speed.json").read_text())
    (folder / "speed.json").write_text(json.dumps(dict.fromkeys(speeds, speeds["c3"])))
    write_reports([folder, other], tell)
    assert told == [
        ("toy", True), ("other", True), ("toy", False), ("other", False),
        ("toy", False), ("other", True), ("toy", True), ("other", False),
    ]  # fmt: skip
    assert (other / "leaderboard.md").read_text() != "edited"
    (folder / "report.html").unlink()
    assert not stamp.is_current(folder)


@pytest.mark.parametrize("more", [["--model", "m/c"], ["--site", "site"], []])
def test_json_is_json_in_every_mode(folder, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(folder), "--json", *more])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    if "--model" in more:
        assert {row["label"] for row in found["rows"]} >= {"toy: EDM"}


_LARGE = r"""
import re, sys
from pathlib import Path
from cmbench.report.write import write_report
write_report(Path(sys.argv[1]))
print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", [256, 512])
def test_large_images_keep_page_and_memory_small(tmp_path, side):
    root = tmp_path / "large"
    for name in ("records", "samples"):
        (root / name).mkdir(parents=True)
    draw = np.random.default_rng(0)
    sheet = Image.fromarray(draw.integers(0, 256, (8 * side, 8 * side, 3), dtype=np.uint8))
    sheet.save(tmp_path / "sheet.png", compress_level=1)
    for i in range(60):
        record = Record(
            suite="large", suite_version=1, cell=f"c{i}", status="done", label=f"m{i // 4}",
            model="m/c", family="m", nfe=2 ** (i % 4), seed=0, images=64, shape=(3, side, side),
        )  # fmt: skip
        (root / "records" / f"c{i}.json").write_text(record.model_dump_json())
        os.link(tmp_path / "sheet.png", root / "samples" / f"c{i}.png")
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(root)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 500e6
    assert (root / "report.html").stat().st_size < 8e6
    with Image.open(root / "samples.png") as strip:
        assert strip.width <= 1600
