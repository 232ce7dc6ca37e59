"""Locks between processes: named holders, waiting, refusing, and taking over from the dead."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from weathermill.errors import StoreLockedError, UnwritableOutputError
from weathermill.incremental.locks import StoreLock, StoreLocks, lock_path, remove_stale

HOLD = """
import sys, time
from pathlib import Path
from weathermill.incremental.locks import StoreLocks
locks = StoreLocks()
exclusive = [Path(p) for p in sys.argv[2:]] if sys.argv[1] == "write" else []
shared = [] if exclusive else [Path(p) for p in sys.argv[2:]]
locks.acquire(exclusive, shared)
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(how, *paths):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, how, *map(str, paths)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "data" / "fields.zarr"


def test_a_lock_leaves_nothing_behind(store):
    locks = StoreLocks()
    locks.acquire([store])
    assert lock_path(store).exists()
    locks.release()
    assert not store.parent.exists()


def test_a_store_in_use_is_refused_and_the_holder_named(store):
    with holder("write", store) as process:
        with pytest.raises(StoreLockedError) as caught:
            StoreLocks(wait=False).acquire([store])
        message = str(caught.value)
        assert f"process {process.pid} on {socket.gethostname()} since 20" in message
        assert str(store) in message
        with pytest.raises(StoreLockedError):
            StoreLocks(wait=False).acquire([], [store])


def test_waiting_has_an_end(store):
    with holder("write", store):
        start = time.monotonic()
        with pytest.raises(StoreLockedError, match="after waiting"):
            StoreLocks(timeout=0.5).acquire([store])
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over(store, number):
    with holder("write", store) as process:
        os.kill(process.pid, number)
        process.wait()
        assert lock_path(store).exists()
        locks = StoreLocks(wait=False)
        assert locks.acquire([store]) is False
        assert [h["pid"] for h in StoreLock(store, exclusive=True).holders()] == [os.getpid()]
        locks.release()
        assert not lock_path(store).exists()


def test_readers_share_and_a_writer_waits_for_all_of_them(store):
    store.parent.mkdir()
    with holder("read", store) as one, holder("read", store) as two:
        locks = StoreLocks(wait=False)
        locks.acquire([], [store])
        locks.release()
        with pytest.raises(StoreLockedError) as caught:
            locks.acquire([store])
        assert str(one.pid) in str(caught.value) and str(two.pid) in str(caught.value)
        one.kill()
        one.wait()
        with pytest.raises(StoreLockedError):
            locks.acquire([store])
    assert locks.acquire([store]) is False
    locks.release()


def test_a_waiting_run_goes_on_when_the_holder_ends(store):
    with holder("write", store) as process:
        locks = StoreLocks(timeout=20)
        subprocess.Popen(
            [sys.executable, "-c", f"import time, os; time.sleep(0.6); os.kill({process.pid}, 9)"]
        )
        assert locks.acquire([store]) is True
        locks.release()


def test_all_or_none(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    with holder("write", second):
        locks = StoreLocks(wait=False)
        with pytest.raises(StoreLockedError):
            locks.acquire([first, second])
        assert not locks and not lock_path(first).exists()


def test_what_is_no_longer_written_is_shared_or_let_go(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    locks, others = StoreLocks(), StoreLocks(wait=False)
    locks.acquire([a, b])
    with pytest.raises(StoreLockedError):
        others.acquire([], [a])
    locks.keep([], [a])
    others.acquire([b], [a])
    others.release()
    with pytest.raises(StoreLockedError):
        others.acquire([a])
    locks.release()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnwritableOutputError):
        StoreLocks().acquire([tmp_path / "file" / "store"])
    StoreLocks().acquire([], [tmp_path / "nowhere" / "store"])


def test_many_processes_exclude_each_other(tmp_path):
    """Each reads a number, waits, and writes it back plus one: none may be lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    script = f"""
import time
from pathlib import Path
from weathermill.incremental.locks import StoreLocks
counter = Path({str(counter)!r})
for _ in range(5):
    locks = StoreLocks()
    locks.acquire([counter])
    value = int(counter.read_text())
    time.sleep(0.01)
    counter.write_text(str(value + 1))
    locks.release()
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert counter.read_text() == "20"
    assert not lock_path(counter).exists()


def test_the_lock_file_of_a_killed_run_goes_and_that_of_a_living_one_stays(store):
    with holder("write", store) as process:
        assert not remove_stale(store)
        assert lock_path(store).exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock_path(store).exists()
        assert remove_stale(store)
        assert not lock_path(store).exists()
    assert not remove_stale(store)


@pytest.mark.parametrize("holders", ['{"host": "elsewhere", "pid": 1}\n', "", "no JSON\n"])
def test_a_lock_file_that_may_be_somebodys_is_left_alone(store, holders):
    """Of another host, whose processes cannot be looked up; or only just made."""
    store.parent.mkdir(parents=True)
    lock_path(store).write_text(holders)
    assert not remove_stale(store)
    assert lock_path(store).exists()


def test_an_old_lock_file_without_a_name_goes(store):
    store.parent.mkdir(parents=True)
    lock_path(store).write_text("")
    os.utime(lock_path(store), (1, 1))
    assert remove_stale(store)
