"""Fetching from a loopback server that misbehaves: resumed, tried again, checked, told."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from loopback import DATA, GOOD, catalogue_text, serving
from typer.testing import CliRunner

from cmbench.assets import download
from cmbench.assets import transfer as _transfer
from cmbench.assets.catalogue import catalogue
from cmbench.assets.download import Patience
from cmbench.assets.http_rules import _SafeRedirects, checked_url
from cmbench.cli.main import app
from cmbench.core.errors import Pending, UserError
from cmbench.core.paths import cache_folder

QUICK = Patience(attempts=3, timeout=0.4, first_wait=0.01, longest_wait=0.02)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The faults of a server whose files the working directory's catalogue names."""
    with serving() as (address, faults):
        (tmp_path / "assets.yaml").write_text(catalogue_text(address))
        monkeypatch.chdir(tmp_path)
        faults.address = address
        yield faults


def fetch(name, **more):
    return download.fetch(name, **{"patience": QUICK, **more})


def part_of(name):
    return cache_folder() / "assets" / f"{name}.bin.part"


def test_a_whole_download_is_checked_and_found_again(server):
    told = []
    path = fetch("good", progress=lambda a, b: told.append((a, b)))
    assert path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert download.asset_path("good") == path
    assert download.verify("good") == GOOD
    fetch("good")
    assert len(server.asked) == 1
    assert sorted(f.name for f in path.parent.iterdir()) == ["good.bin", "good.bin.sha256"]


@pytest.mark.parametrize("fault", ["cut", "reset", "hang"])
def test_a_body_that_breaks_off_is_gone_on_with(server, fault):
    server.script = [(fault, 5000), (fault, 7000)]
    assert fetch("good").read_bytes() == DATA
    assert server.asked == [None, "bytes=5000-", "bytes=12000-"]


def test_without_ranges_the_whole_comes_anew(server):
    server.script, server.ranges = [("cut", 5000)], False
    assert fetch("good").read_bytes() == DATA
    assert server.asked == [None, "bytes=5000-"]


def test_each_byte_won_restarts_the_count_of_attempts(server):
    """A server that gives 20,000 bytes a connection serves the file in six, though 3 may fail."""
    server.script = [("cut", 20_000)] * 5
    assert fetch("good").read_bytes() == DATA
    assert len(server.asked) == 6


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_brings_nothing_new_is_given_up(server, ranges):
    server.ranges = ranges
    server.script = [("cut", 5000)] + [("cut", 5000 if not ranges else 0)] * 20
    with pytest.raises(
        UserError, match=r"3 attempts over 0 s: broke off \(3 times\); 5,000 bytes"
    ):
        fetch("good")
    assert part_of("good").stat().st_size == 5000
    server.script = []
    assert fetch("good").read_bytes() == DATA


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_passing_errors_are_tried_again(server, code):
    server.script = [code, code]
    assert fetch("good").read_bytes() == DATA
    assert len(server.asked) == 3


def test_what_was_tried_is_told(server):
    server.script = [503, ("hang", 0), 503]
    with pytest.raises(UserError) as caught:
        fetch("good")
    said = str(caught.value)
    assert "HTTP 503 Service Unavailable (2 times), timed out" in said
    assert "0 bytes are kept" in said
    assert "same command" in said
    assert "--mirror" in said


def test_waits_double_and_heed_what_the_server_asks(server, monkeypatch):
    waits = []
    monkeypatch.setattr(_transfer.time, "sleep", lambda s: waits.append(s) if s else None)
    server.script = [503] * 5
    with pytest.raises(UserError):
        fetch("good", patience=Patience(attempts=5, first_wait=1.0, longest_wait=6.0))
    assert [w for w in waits if w >= 1] == [1.0, 2.0, 4.0, 6.0]
    waits.clear()
    server.script, server.headers = [503], {"Retry-After": "3"}
    fetch("good", patience=Patience(first_wait=1.0, longest_wait=6.0))
    assert [w for w in waits if w >= 1] == [3.0]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_lasting_errors_are_not_tried_again(server, code):
    server.script = [code]
    with pytest.raises(UserError, match=rf"(?s)answered {code}.*--mirror"):
        fetch("good")
    assert len(server.asked) == 1


def test_a_missing_file_says_what_to_do(server):
    with pytest.raises(UserError, match=r"(?s)404.*cmbench assets fetch missing --mirror URL"):
        fetch("missing")


def test_a_file_that_changed_on_the_server_starts_over(server):
    server.etag, server.script = '"one"', [("cut", 5000), ("cut", 0), ("cut", 0)]
    server.data = bytes(len(DATA))
    with pytest.raises(UserError):
        fetch("good")
    server.etag, server.data = '"two"', DATA
    assert fetch("good").read_bytes() == DATA
    assert server.asked[-1] == "bytes=5000-"


def test_a_part_that_is_whole_is_only_checked(server):
    part = part_of("good")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA)
    assert fetch("good").read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_a_part_longer_than_the_file_is_dropped(server):
    part = part_of("good")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA + b"more")
    assert fetch("good").read_bytes() == DATA


@pytest.mark.parametrize("name", ["wrong"])
def test_what_is_not_as_stated_is_refused_and_removed(server, name):
    with pytest.raises(UserError, match=r"stated.*it was removed"):
        fetch(name)
    with pytest.raises(Pending):
        download.asset_path(name)
    assert not part_of(name).exists()


def test_a_prefix_of_the_checksum_suffices(server):
    assert fetch("short").read_bytes() == DATA


def test_a_checksum_is_recorded_where_none_is_published(server):
    path = fetch("plain")
    path.write_bytes(DATA[:-1])
    with pytest.raises(UserError, match="has changed since it was fetched"):
        download.verify("plain")


def test_a_web_page_in_place_of_the_file_is_refused(server):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(UserError, match=r"(?s)web page.*assets add"):
        fetch("plain")
    assert not part_of("plain").exists()


def test_no_server_is_told_at_once(server):
    with pytest.raises(UserError, match="can't be reached: Connection refused"):
        fetch("good", mirror="http://127.0.0.1:9")


def test_room_is_looked_for_before_the_download(server, monkeypatch):
    monkeypatch.setattr(_transfer.shutil, "disk_usage", lambda p: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"10 bytes free, 102,400 are needed"):
        fetch("good")
    with pytest.raises(UserError, match=r"10 bytes free, 99 are needed"):
        fetch("sized")
    assert server.asked == [None]


def test_a_disk_that_fills_up_keeps_what_came(server, tmp_path, monkeypatch):
    """A real file system of 64 KiB; the look at the room is told a lie, as a neighbour would."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk can't be mounted here: {made.stderr.strip()}")
    try:
        monkeypatch.setenv("CMBENCH_CACHE", str(disk))
        monkeypatch.setattr(
            _transfer.shutil, "disk_usage", lambda p: SimpleNamespace(free=1 << 40)
        )
        with pytest.raises(UserError, match=r"(?s)disk is full.*bytes are kept, run the same"):
            fetch("good")
        kept = part_of("good").stat().st_size
        assert 0 < kept < len(DATA)
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        assert fetch("good").read_bytes() == DATA
        assert server.asked[-1] == f"bytes={kept}-"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_offline_forbids_servers_and_allows_folders(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_OFFLINE", "1")
    with pytest.raises(Pending, match="CMBENCH_OFFLINE is set"):
        fetch("good")
    assert server.asked == []
    (tmp_path / "good.bin").write_bytes(DATA)
    assert fetch("good", mirror=str(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize("way", ["option", "variable", "file url"])
def test_a_local_folder_is_a_mirror(server, tmp_path, monkeypatch, way):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "good.bin").write_bytes(DATA)
    if way == "variable":
        monkeypatch.setenv("CMBENCH_MIRROR", str(folder))
    given = {"option": str(folder), "variable": None, "file url": folder.as_uri()}[way]
    assert fetch("good", mirror=given).read_bytes() == DATA
    assert server.asked == []


def test_the_option_wins_over_the_variable(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_MIRROR", str(tmp_path / "nowhere"))
    assert fetch("good", mirror=server.address).read_bytes() == DATA


@pytest.mark.parametrize(
    ("mirror", "said"),
    [("nowhere", "is no folder"), ("ftp://x/y", "is no address"), (".", "does not exist")],
)
def test_a_mirror_that_can_t_be_is_told(server, mirror, said):
    with pytest.raises(UserError, match=said):
        fetch("good", mirror=mirror)


def test_what_no_program_can_fetch_says_where_a_person_finds_it(server, tmp_path):
    for attempt in (download.asset_path, fetch):
        with pytest.raises(Pending, match=r"https://example\.org/folder; ask") as caught:
            attempt("brought")
        assert caught.value.command == "cmbench assets add brought FILE"
    (tmp_path / "mine").write_bytes(DATA)
    path = download.add("brought", tmp_path / "mine")
    assert path == download.asset_path("brought")
    assert download.verify("brought") == GOOD
    assert (tmp_path / "mine").is_file()
    # A mirror that has it serves it all the same.
    path.unlink()
    (tmp_path / "brought.bin").write_bytes(DATA)
    assert fetch("brought", mirror=str(tmp_path)).read_bytes() == DATA


def test_a_file_of_another_size_than_stated_is_not_begun(server):
    with pytest.raises(UserError, match="102,400 bytes, 99 are stated"):
        fetch("sized")
    assert not part_of("sized").exists()


def test_a_body_longer_than_stated_is_stopped_at_the_size(server):
    """Without a Content-Length only the count of what comes can tell."""
    server.script = [("endless", 10**9)]
    with pytest.raises(UserError, match="more than the 99 bytes stated"):
        fetch("sized")
    assert not part_of("sized").exists()
    assert server.sent < 20_000_000


def test_a_part_longer_than_stated_is_begun_anew(server, tmp_path):
    part = part_of("sized")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(5000))
    server.data = bytes(99)
    assert fetch("sized").read_bytes() == bytes(99)


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("http://[::1", "is no address"),
        ("http://", "is no address"),
        ("http://x:99999999/", "is no address"),
        ("http://x:port/", "is no address"),
        ("https://" + "a" * 100 + ".org", "is no address"),
    ],
)
def test_malformed_mirrors_are_user_errors(server, mirror, said):
    with pytest.raises(UserError, match=said):
        fetch("good", mirror=mirror)


@pytest.mark.parametrize("folder", ["é", "a b", "a%20b", "ü/ß?", "\u6587"])
def test_addresses_are_written_as_http_needs_them(server, folder):
    assert fetch("good", mirror=f"{server.address}/{folder}").read_bytes() == DATA
    assert server.paths[-1].isascii()
    assert " " not in server.paths[-1]


@pytest.mark.parametrize(("given", "written"), [
    ("http://host/é", "http://host/%C3%A9"),
    ("https://bücher.example/a", "https://xn--bcher-kva.example/a"),
    ("http://u:p@host:81/a%20b?x=1&y=[2]", "http://u:p@host:81/a%20b?x=1&y=[2]"),
    ("http://[::1]:8/a", "http://[::1]:8/a"),
])  # fmt: skip
def test_addresses_by_example(given, written):
    assert checked_url(given) == written


def redirected(url, target):
    request = urllib.request.Request(url)
    return _SafeRedirects().redirect_request(request, None, 302, "Found", {}, target)


def test_https_never_becomes_http():
    assert redirected("https://a/x", "https://b/y").full_url == "https://b/y"
    assert redirected("http://a/x", "https://b/y").full_url == "https://b/y"
    for target in ("http://b/y", "ftp://b/y", "file:///etc/passwd"):
        with pytest.raises(UserError, match=r"redirects to|is no address"):
            redirected("https://a/x", target)


def test_redirects_are_followed_and_held_to_http(server):
    server.script, server.headers = [302], {"Location": f"{server.address}/elsewhere.bin"}
    assert fetch("good").read_bytes() == DATA
    assert server.paths[-1] == "/elsewhere.bin"
    for name, target in (("plain", "http://[::1"), ("wrong", "file:///etc/passwd")):
        server.script, server.headers = [302], {"Location": target}
        with pytest.raises(UserError):
            fetch(name)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", ""])
def test_lengths_that_are_no_lengths_end_in_no_traceback(server, length):
    server.script = [503]
    server.headers = {"Retry-After": length}
    assert fetch("good").read_bytes() == DATA


@pytest.mark.parametrize("path", ["/proc/self/mem", "/dev/zero", "/proc/self/status", "/proc"])
def test_files_that_are_none_are_user_errors(server, tmp_path, path):
    (tmp_path / "assets.yaml").write_text(
        f'odd: {{url: "file://{path}", file: odd.bin, licence: "-", citation: "-"}}'
    )
    for attempt in (lambda: fetch("odd"), lambda: download.add("odd", Path(path))):
        with pytest.raises(UserError, match=path):
            attempt()


@pytest.mark.parametrize("timeout", [1e30, 0.0, -1.0, float("nan"), float("inf")])
def test_timeouts_that_no_socket_takes_are_refused(timeout):
    with pytest.raises(UserError, match="timeout"):
        Patience(timeout=timeout)
    shown = CliRunner().invoke(app, ["assets", "fetch", "x", "--timeout", str(timeout)])
    assert shown.exit_code == 2


def test_waits_stay_in_bounds_for_any_number_of_attempts():
    assert Patience().wait(10**9) == Patience().longest_wait
    assert [Patience().wait(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]


def test_a_server_s_own_words_do_not_reach_the_terminal(server):
    server.script, server.phrase = [404], "\x1b[31mOwned"
    with pytest.raises(UserError, match="404 Not Found"):
        fetch("good")


def test_another_file_is_not_added(server, tmp_path):
    (tmp_path / "mine").write_bytes(DATA[1:])
    with pytest.raises(UserError, match="stated"):
        download.add("good", tmp_path / "mine")
    with pytest.raises(UserError, match="does not exist"):
        download.add("good", tmp_path / "nowhere")
    assert (tmp_path / "mine").read_bytes() == DATA[1:]
    (tmp_path / "right").write_bytes(DATA)
    download.add("good", tmp_path / "right")
    download.add("good", tmp_path / "right")
    with pytest.raises(UserError, match="is there already"):
        download.add("good", tmp_path / "mine")


FETCH = "from cmbench.assets.download import fetch; fetch('good')"


def process():
    return subprocess.Popen([sys.executable, "-c", FETCH], stderr=subprocess.PIPE, text=True)


def test_two_processes_bring_a_file_once(server):
    server.pace = 0.1
    both = [process(), process()]
    told = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [0, 0], told
    assert server.asked == [None]
    assert download.verify("good") == GOOD
    assert not list((cache_folder() / "leases").iterdir())


def test_a_process_that_was_killed_is_succeeded(server):
    server.script = [("hang", 5000)]
    first = process()
    deadline = time.monotonic() + 30
    while not (part_of("good").is_file() and part_of("good").stat().st_size == 5000):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert list((cache_folder() / "leases").iterdir())
    assert fetch("good").read_bytes() == DATA
    assert server.asked == [None, "bytes=5000-"]


def command(*args):
    return CliRunner().invoke(app, ["assets", *args])


def test_commands_list_add_verify_fetch_and_show(server, tmp_path):
    (tmp_path / "mine").write_bytes(DATA)
    place = cache_folder() / "assets"
    assert command("add", "good", "mine").stdout == f"{place / 'good.bin'}\n"
    assert [row["asset"] for row in json.loads(command("list", "--here", "--json").stdout)] == [
        "good"
    ]
    assert command("verify").stdout == f"{GOOD}  good\n"
    assert f"{place / 'plain.bin'}" in command("fetch", "plain", "--attempts", "2").stdout
    assert command("path", "plain").stdout == f"{place / 'plain.bin'}\n"
    assert "by hand   brought" in command("list").stdout
    assert "page: https://example.org/folder" in command("show", "brought").stdout


def test_one_that_can_t_be_had_does_not_keep_the_others(server):
    done = command("fetch", "goood", "missing", "plain")
    assert done.exit_code == 2
    assert "Did you mean 'good'?" in done.stderr
    assert "answered 404" in done.stderr
    assert download.verify("plain") == GOOD


def test_the_catalogue_reads():
    found = catalogue()
    assert found["inception-2015-12-05"].sha256.startswith("6726825d")
    assert all(a.url is None or a.url.startswith("https://") for a in found.values())
    assert len({a.file for a in found.values()}) == len(found)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("file: ../x, url: https://a/b", "plain name"),
        ("file: x.part, url: https://a/b", "plain name"),
        ("file: x, url: ftp://a/b", "must start with"),
        ("file: x, url: https://a/b, sha256: abc", "sha256"),
        ("file: x, urll: https://a/b", "unknown key 'urll'"),
    ],
)
def test_a_list_of_one_s_own_is_checked(tmp_path, monkeypatch, row, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets.yaml").write_text(
        f'# mine\nmine: {{{row}, licence: "-", citation: "-"}}\n'
    )
    with pytest.raises(UserError, match=rf"(?s)assets\.yaml:2.*{said}"):
        catalogue()
