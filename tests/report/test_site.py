"""The static site over several suites, and `cmbench report --serve`, which shows it to this machine."""

import http.client
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from devtools import BROWSER, browser
from toy_results import HOSTILE, write_toy_results
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.errors import UserError
from cmbench.report.site import write_site


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with the results of two suites."""
    root = tmp_path_factory.mktemp("place")
    for name in ("one", "two & more"):
        write_toy_results(root / "results" / name)
    return root


@pytest.fixture(scope="module")
def site(place):
    return write_site(sorted((place / "results").iterdir()), place / "site").parent


def test_the_site_holds_an_index_and_each_suite_s_report_and_tables(site):
    found = {str(file.relative_to(site)) for file in site.rglob("*") if file.is_file()}
    names = ("report.html", "leaderboard.csv", "leaderboard.tex", "leaderboard.md", "suite.yaml",
             "field.csv", "field.tex")  # fmt: skip
    assert found == {"index.html", *(f"{s}/{n}" for s in ("one", "two & more") for n in names)}
    index = (site / "index.html").read_text()
    linked = [urllib.request.unquote(link) for link in re.findall(r'href="([^"#:]+)"', index)]
    assert linked
    assert all((site / link).is_file() for link in linked)


def test_written_again_it_is_the_same(site, place):
    before = {f: f.read_bytes() for f in site.rglob("*") if f.is_file()}
    write_site(sorted((place / "results").iterdir()), site)
    assert {f: f.read_bytes() for f in site.rglob("*") if f.is_file()} == before


def test_two_folders_of_one_name_and_the_results_themselves_are_refused(place, tmp_path):
    one = place / "results" / "one"
    with pytest.raises(UserError, match="two results folders are called 'one'"):
        write_site([one, one], tmp_path)
    with pytest.raises(UserError, match="over the results themselves"):
        write_site([one], place / "results")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_index_filters_asks_for_nothing_and_keeps_names_text(site, tmp_path, width, dark):
    with browser(tmp_path) as page:
        page.open(site / "index.html", width=width, dark=dark)
        rows = "[...document.querySelectorAll('#numbers tbody tr')].filter(r => !r.hidden)"
        # Each suite: four cells with two scores and one with one.
        assert page.run(f"{rows}.length") == 18
        page.run("document.querySelector('#filter').focus()")
        page.send("Input.insertText", text="two precision EDM")
        assert page.run(f"{rows}.length") == 3
        assert page.run("document.querySelector('#shown').textContent") == "3 of 18"
        labels = page.run(
            "[...document.querySelectorAll('#numbers tbody tr')].map(r => r.cells[2].textContent)"
        )
        assert set(labels) == {"EDM", HOSTILE}
        assert page.run("document.querySelectorAll('img').length") == 0
        assert "best of 3" in page.run("document.querySelector('#numbers').textContent")
        assert page.run("document.documentElement.scrollWidth") <= width
        unnamed = [n for n in page.told() if n["role"] in ("searchbox", "link", "table")
                   and not n["name"]]  # fmt: skip
        assert unnamed == []
        assert page.errors() == []
        assert page.requests() == [(site / "index.html").as_uri()]


def test_the_command_writes_it_and_names_its_index(place, monkeypatch):
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["report", "--site", "elsewhere"])
    assert (done.exit_code, done.stdout) == (0, "elsewhere/index.html\n")
    assert (place / "elsewhere" / "one" / "report.html").is_file()


@pytest.fixture(scope="module")
def served(place):
    """`cmbench report --serve` on a free port: its process and its URL."""
    started = subprocess.Popen(
        [sys.executable, "-m", "cmbench", "report", "--serve"], cwd=place, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        line = started.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", line), line
        yield started, line.strip()
    finally:
        started.kill()
        started.wait(30)


def _status(url: str, path: str, **headers: str) -> int:
    host = url.split("/")[2]
    link = http.client.HTTPConnection(host, timeout=30)
    link.request("GET", path, headers={"Host": host} | headers)
    status = link.getresponse().status
    link.close()
    return status


def test_served_pages_are_those_of_the_site(served, place):
    _, url = served
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "<h1>Leaderboards</h1>" in text
    for link in re.findall(r'href="([^"#:]+)"', text):
        assert _status(url, f"/{link}") == 200, link


def test_nothing_else_is_served_and_to_nobody_else(served):
    _, url = served
    for path in ("/one/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/absent.html"):
        assert _status(url, path) == 404, path
    assert _status(url, "/", Host="elsewhere.example") == 403
    assert _status(url, "/", Host="localhost") == 200


def test_a_port_that_is_taken_is_told_in_words(served, place):
    _, url = served
    port = url.rsplit(":", 1)[1].strip("/")
    done = subprocess.run(
        [sys.executable, "-m", "cmbench", "report", "--serve", "--port", port], cwd=place,
        text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"error: port {port} can't be had: Address already in use" in done.stderr
    assert "--port 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_it_well(served, place):
    started, url = served
    os.kill(started.pid, signal.SIGINT)
    assert started.wait(60) == 0
    assert "Traceback" not in started.stderr.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    assert {p.name for p in Path(place).iterdir()} <= {"results", "site", "elsewhere"}
