"""Fetching from a loopback server: resumed, checked, refused, told."""

import hashlib
import http.server
import threading
from types import SimpleNamespace

import pytest

from cmbench.assets import download
from cmbench.assets.catalogue import Asset, catalogue
from cmbench.core.errors import Pending, UserError

DATA = bytes(range(256)) * 400
GOOD = hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    ranges, cut, asked = True, 0, []

    def do_GET(self):
        Server.asked.append(self.headers.get("Range"))
        if self.path.endswith("missing.bin"):
            self.send_error(404)
            return
        first = 0
        if Server.ranges and (given := self.headers.get("Range")):
            first = int(given.removeprefix("bytes=").rstrip("-"))
        body = DATA[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: Server.cut or None])

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    Server.ranges, Server.cut, Server.asked = True, 0, []
    rows = {
        "good": Asset(url="http://nowhere.invalid/x", file="good.bin", sha256=GOOD, licence="-", citation="-"),
        "plain": Asset(url="http://nowhere.invalid/x", file="plain.bin", licence="-", citation="-"),
        "wrong": Asset(url="http://nowhere.invalid/x", file="wrong.bin", sha256="0" * 64, licence="-", citation="-"),
        "missing": Asset(url="http://nowhere.invalid/x", file="missing.bin", licence="-", citation="-"),
    }  # fmt: skip
    monkeypatch.setattr(download, "find_asset", rows.__getitem__)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_whole_download_is_checked_and_found_again(mirror):
    told = []
    path = download.fetch("good", mirror=mirror, progress=lambda a, b: told.append((a, b)))
    assert path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert download.asset_path("good") == path
    assert download.verify("good") == GOOD
    download.fetch("good", mirror=mirror)
    assert len(Server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(mirror, ranges):
    Server.cut, Server.ranges = 5000, ranges
    with pytest.raises(UserError, match=r"broke off after|can't be reached"):
        download.fetch("good", mirror=mirror)
    Server.cut = 0
    assert download.fetch("good", mirror=mirror).read_bytes() == DATA
    assert Server.asked[1] == "bytes=5000-"


def test_a_wrong_checksum_is_refused_and_removed(mirror):
    with pytest.raises(UserError, match="SHA-256"):
        download.fetch("wrong", mirror=mirror)
    with pytest.raises(Pending):
        download.asset_path("wrong")


def test_a_checksum_is_recorded_where_none_is_published(mirror):
    path = download.fetch("plain", mirror=mirror)
    path.write_bytes(DATA[:-1])
    with pytest.raises(UserError, match="has changed since it was fetched"):
        download.verify("plain")


def test_a_missing_file_says_what_to_do(mirror):
    with pytest.raises(UserError, match=r"(?s)404.*--mirror"):
        download.fetch("missing", mirror=mirror)


def test_no_server_is_told(mirror):
    with pytest.raises(UserError, match="can't be reached"):
        download.fetch("good", mirror="http://127.0.0.1:9", timeout=2)


def test_a_full_disk_is_told_before_the_download(mirror, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda p: SimpleNamespace(free=10))
    with pytest.raises(UserError, match="10 bytes free"):
        download.fetch("good", mirror=mirror)


def test_offline_forbids_downloads(mirror, monkeypatch):
    monkeypatch.setenv("CMBENCH_OFFLINE", "1")
    with pytest.raises(Pending):
        download.fetch("good", mirror=mirror)


def test_a_local_folder_is_a_mirror(mirror, tmp_path, monkeypatch):
    (tmp_path / "good.bin").write_bytes(DATA)
    monkeypatch.setenv("CMBENCH_MIRROR", str(tmp_path))
    assert download.fetch("good").read_bytes() == DATA


def test_the_catalogue_reads():
    found = catalogue()
    assert found["inception-2015-12-05"].sha256.startswith("6726825d")
    assert all(a.url.startswith("https://") for a in found.values())
