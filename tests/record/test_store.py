"""The store: whole or absent, checked, leased."""

import json
import multiprocessing
import os
import time

import pytest

from cmbench.core.errors import UserError
from cmbench.store import leases
from cmbench.store.leases import FileLeases
from cmbench.store.store import Address, Store

ADDRESS = Address("sample", "ab" * 32)


def put(store, address=ADDRESS, text="hello"):
    with store.writing(address, {"what": text}) as folder:
        (folder / "a.txt").write_text(text)


def _stopped(store):
    with store.writing(ADDRESS, {}) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError("stop")


def test_an_output_is_there_only_when_its_block_ends_well(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="stop"):
        _stopped(store)
    assert not store.has(ADDRESS)
    assert list((tmp_path / "tmp").iterdir()) == []
    put(store)
    assert Store(tmp_path).has(ADDRESS)
    assert (store.folder(ADDRESS) / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_harm_is_found_and_the_output_made_again(tmp_path, harm):
    put(Store(tmp_path))
    folder = Store(tmp_path).folder(ADDRESS)
    file, manifest = folder / "a.txt", folder / "manifest.json"
    if harm == "flip":
        file.write_text("hellO")
    elif harm == "truncate":
        file.write_text("hell")
    elif harm == "remove":
        file.unlink()
    elif harm == "manifest":
        manifest.write_text(manifest.read_text()[:-20])
    else:
        manifest.unlink()
    store = Store(tmp_path)
    assert not store.has(ADDRESS)
    put(store)
    assert Store(tmp_path).has(ADDRESS)


def test_a_second_copy_of_an_output_does_no_harm(tmp_path):
    put(Store(tmp_path))
    put(Store(tmp_path))
    assert Store(tmp_path).has(ADDRESS)


def _work(root, log):
    store = Store(root)
    with store.lease(ADDRESS):
        if not store.has(ADDRESS):
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.5)
            put(store)


def test_two_processes_do_not_do_the_same_work(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    workers = [context.Process(target=_work, args=(tmp_path / "s", log)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1


def _hold(root, ready):
    with Store(root).lease(ADDRESS):
        ready.set()
        time.sleep(600)


def test_the_lease_of_a_killed_process_is_taken_over(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=_hold, args=(tmp_path, ready))
    worker.start()
    assert ready.wait(60)
    worker.kill()
    worker.join()
    with Store(tmp_path).lease(ADDRESS):
        owner = json.loads((tmp_path / "leases" / ADDRESS.key).read_text())
    assert owner["pid"] == os.getpid()


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="can't be written"):
        Store(blocked / "cache")


def test_a_late_watcher_does_not_take_a_lease_that_was_taken_over_already(tmp_path):
    store = Store(tmp_path)
    path = tmp_path / "leases" / ADDRESS.key
    dead = {"pid": 2**22 + 1, "host": "gone", "born": "1"}
    path.write_text(json.dumps(dead))
    files = FileLeases(tmp_path / "leases", tmp_path / "tmp")
    files.take_away(ADDRESS.key, dead)
    assert not path.exists()
    with store.lease(ADDRESS):
        files.take_away(ADDRESS.key, dead)  # a second watcher that read the dead owner earlier
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("jump", [-4e8, 0.0, 4e8])
def test_a_silent_lease_of_another_machine_is_taken_whatever_its_clock_said(
    tmp_path, monkeypatch, jump
):
    monkeypatch.setattr(leases, "_STALE_SECONDS", 0.3)
    store = Store(tmp_path)
    path = tmp_path / "leases" / ADDRESS.key
    path.write_text(json.dumps({"pid": 1, "host": "gone", "born": "1"}))
    moment = time.time() + jump
    os.utime(path, (moment, moment))
    with store.lease_if_free(ADDRESS) as mine:
        assert not mine
    time.sleep(0.4)
    with store.lease_if_free(ADDRESS) as mine:
        assert mine
    assert not path.exists()


@pytest.mark.parametrize("jump", [-4e8, 4e8])
def test_a_heartbeat_counts_whatever_the_clock_behind_it_says(tmp_path, monkeypatch, jump):
    monkeypatch.setattr(leases, "_STALE_SECONDS", 0.3)
    store = Store(tmp_path)
    path = tmp_path / "leases" / ADDRESS.key
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "born": "1"}))
    for beat in range(3):
        moment = time.time() + beat * jump
        os.utime(path, (moment, moment))
        with store.lease_if_free(ADDRESS) as mine:
            assert not mine
        time.sleep(0.4)
