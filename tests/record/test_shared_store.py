"""Machines that share object storage: what one makes all have, once, whole, under one lease."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3_server import s3_server

from cmbench.core.errors import UserError
from cmbench.core.paths import cache_folder
from cmbench.store import leases, object_storage
from cmbench.store.object_storage import ObjectStorage, pack, unpack
from cmbench.store.shared import SharedStore, open_store
from cmbench.store.store import Address, Store

ADDRESS = Address("sample", "ab" * 32)
OTHER = Address("score", "cd" * 32)
Machine = Callable[[str], SharedStore]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    pytest.importorskip("moto", reason="the extra 'test' is not installed")
    pytest.importorskip("s3fs", reason="the extra 'cloud' is not installed")
    with s3_server() as told:
        yield told


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/bucket"
    if request.param == "memory":
        return f"memory://{tmp_path}"
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    return f"s3://shared/{tmp_path.name}"


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Machine:
    return lambda name: SharedStore(tmp_path / name, ObjectStorage(url))


def put(store: Store, address: Address = ADDRESS, text: str = "hello") -> None:
    with store.writing(address, {"what": text}) as folder:
        (folder / "a.txt").write_text(text)


def test_what_one_machine_makes_another_has(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    assert not two.has(ADDRESS)
    assert not two.present(ADDRESS)
    put(one)
    assert two.present(ADDRESS)
    assert two.survey()(ADDRESS)
    assert not two.survey()(OTHER)
    assert (two.folder(ADDRESS) / "a.txt").read_text() == "hello"
    assert two.has(ADDRESS)
    assert not (two.folder(OTHER)).exists()


def test_an_output_from_before_the_storage_was_shared_is_carried_over(
    machine: Machine, tmp_path: Path
) -> None:
    put(Store(tmp_path / "one"))
    two = machine("two")
    assert not two.has(ADDRESS)
    assert machine("one").has(ADDRESS)
    assert two.has(ADDRESS)


def test_harm_on_a_machine_is_mended_from_the_storage(machine: Machine) -> None:
    put(machine("one"))
    file = machine("one").folder(ADDRESS) / "a.txt"
    file.write_text("hellO")
    assert machine("one").has(ADDRESS)
    assert file.read_text() == "hello"


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "another"])
def test_harm_in_the_storage_is_found_and_made_again(machine: Machine, harm: str) -> None:
    one, two = machine("one"), machine("two")
    put(one)
    name = f"objects/sample/ab/{ADDRESS.key}.tar"
    whole = one.storage.read(name)
    assert whole is not None
    put(one, OTHER)
    other = one.storage.read(f"objects/score/cd/{OTHER.key}.tar")
    assert other is not None
    one.storage.write(name, {"cut": whole[:700], "empty": b"", "another": other,
                             "flipped": whole.replace(b"hello", b"hellO", 1)}[harm])  # fmt: skip
    assert not two.has(ADDRESS)
    put(two)
    assert machine("three").has(ADDRESS)


def test_a_discarded_output_is_gone_on_the_storage_too(machine: Machine) -> None:
    one = machine("one")
    put(one)
    one.discard(ADDRESS)
    assert not one.has(ADDRESS)
    assert not machine("two").present(ADDRESS)
    one.discard(ADDRESS)


def test_of_two_who_create_one_object_the_second_is_told(machine: Machine) -> None:
    storage = machine("one").storage
    assert storage.create("leases/x", b"one")
    assert not storage.create("leases/x", b"two")
    assert storage.read("leases/x") == b"one"
    storage.remove("leases/x")
    assert storage.create("leases/x", b"two")


def test_a_machine_waits_for_another_s_lease_and_takes_its_output(machine: Machine) -> None:
    one, two, told = machine("one"), machine("two"), list[str]()
    with one.lease(ADDRESS):
        with two.lease_if_free(ADDRESS) as mine:
            assert not mine
        waiter = threading.Thread(target=lambda: _make(two, told), daemon=True)
        waiter.start()
        time.sleep(0.5)
        put(one)
    waiter.join(60)
    assert told[0].endswith(socket.gethostname())
    assert told[1:] == []
    assert two.storage.names("leases") == []


def _make(store: Store, told: list[str]) -> None:
    with store.lease(ADDRESS, waiting=told.append):
        if not store.has(ADDRESS):
            told.append("made")


def test_a_silent_machine_s_lease_is_taken_and_a_beating_one_s_is_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_STALE_SECONDS", 0.6)
    store = machine("one")
    name, owner = f"leases/{ADDRESS.key}", {"pid": 1, "host": "gone", "born": "1", "token": "x"}
    for beat in range(3):
        store.storage.write(name, json.dumps({**owner, "beat": beat}).encode())
        with store.lease_if_free(ADDRESS) as mine:
            assert not mine
        time.sleep(0.4)
    time.sleep(0.4)
    with store.lease_if_free(ADDRESS) as mine:
        assert mine
    assert store.storage.read(name) is None


def test_a_holder_beats_and_leaves_a_lease_that_was_taken_from_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "_HEARTBEAT_SECONDS", 0.05)
    store = machine("one")
    name = f"leases/{ADDRESS.key}"
    with store.lease(ADDRESS):
        first = store.storage.read(name)
        until = time.monotonic() + 60
        while store.storage.read(name) == first and time.monotonic() < until:
            time.sleep(0.05)
        assert store.storage.read(name) != first
        other = b'{"token": "another"}'
        for _ in range(20):  # a beat that was on its way may still overwrite it once
            store.storage.write(name, other)
            time.sleep(0.3)
            if store.storage.read(name) == other:
                break
    assert store.storage.read(name) == b'{"token": "another"}'


def test_checkpoints_travel_to_the_machine_that_goes_on(machine: Machine) -> None:
    one, two = machine("one"), machine("two")
    address = Address("train", "ef" * 32)
    with pytest.raises(KeyboardInterrupt), one.lease(address):
        (one.work_folder(address) / "checkpoint-1.pt").write_bytes(b"weights")
        raise KeyboardInterrupt
    with two.lease(address):
        assert (two.work_folder(address) / "checkpoint-1.pt").read_bytes() == b"weights"
        two.finish_work(address)
    assert two.storage.names("work") == []
    assert not any(machine("three").work_folder(address).iterdir())


def test_equal_folders_give_equal_bytes_and_nothing_gets_out_of_the_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_text("same")
        (tmp_path / name / ".half.tmp").write_text(name)
        time.sleep(0.01)
        pack(tmp_path / name, tmp_path / f"{name}.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert unpack(tmp_path / "a.tar", tmp_path / "c")
    assert [f.name for f in (tmp_path / "c").rglob("*") if f.is_file()] == ["x"]
    hostile = (tmp_path / "a.tar").read_bytes().replace(b"deep/x", b"../../", 1)
    (tmp_path / "d.tar").write_bytes(hostile)
    assert not unpack(tmp_path / "d.tar", tmp_path / "d")


def test_storage_that_refuses_or_is_unknown_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="writing leases/x failed"):
        ObjectStorage(f"file://{tmp_path}/file").create("leases/x", b"")
    with pytest.raises(UserError, match="CMBENCH_STORE=nowhere://x"):
        ObjectStorage("nowhere://x")
    monkeypatch.setenv("CMBENCH_CACHE", "s3://bucket/x")
    with pytest.raises(UserError, match="CMBENCH_STORE=s3://bucket/x"):
        cache_folder()


def test_the_variable_decides_what_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CMBENCH_STORE", raising=False)
    assert type(open_store(tmp_path)) is Store
    monkeypatch.setenv("CMBENCH_STORE", f"memory://{tmp_path}")
    assert isinstance(open_store(tmp_path), SharedStore)
