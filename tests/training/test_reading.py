"""A reading thread that fails or dies ends the training with an error, and never hangs it."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

from weathermill.errors import StoreError, WeathermillError
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.feed import make_feed


class LostError(Exception):
    pass


@pytest.fixture
def store(tmp_path, make_store):
    return make_store(tmp_path / "store", splits={"train": [(0, 40)]})


def end(prefix):
    """End threads from outside, as nothing in the code foresees; gives those struck."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]
    for thread in threads:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return threads


def later(store, monkeypatch, error):
    """Have the reader of the store raise after some reads."""
    original, calls = type(store).read_into, []

    def reading(self, *arguments):
        calls.append(1)
        if len(calls) > 8:
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(type(store), "read_into", reading)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), LostError("gone"), SystemExit(0)])
def test_what_a_reading_thread_raises_is_told_plainly(store, monkeypatch, error):
    later(store, monkeypatch, error)
    with (
        make_feed(store, "train", 1, 2, "cpu", "mapped", threads=2, reader="read") as feed,
        pytest.raises(StoreError, match="reading training data failed") as caught,
    ):
        list(feed.epoch(0))
    assert type(error).__name__ in str(caught.value) and "store" in caught.value.where
    assert "resume" in str(caught.value)


@pytest.mark.parametrize("error", [LostError("gone"), SystemExit(0)])
def test_a_resident_split_that_cannot_be_read_is_told_too(store, monkeypatch, error):
    monkeypatch.setattr(type(store), "read_into", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(StoreError, match="reading training data failed"):
        make_feed(store, "train", 1, 2, "cpu", "pinned", threads=2)


@pytest.mark.parametrize("prefix", ["weathermill-read", "weathermill-feed"])
def test_a_thread_that_ends_ends_the_epoch(store, monkeypatch, prefix):
    monkeypatch.setattr("weathermill.training.reading.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("weathermill.training.prefetch.LOOK_SECONDS", 0.05)
    original = type(store).read_into

    def slowly(self, *arguments):
        time.sleep(0.01)
        return original(self, *arguments)

    monkeypatch.setattr(type(store), "read_into", slowly)
    began = time.monotonic()
    with make_feed(store, "train", 1, 2, "cpu", "mapped", threads=2, reader="read") as feed:
        epoch = feed.epoch(0)
        next(epoch)
        struck = end(prefix)
        assert struck
        with pytest.raises(StoreError, match="reading training data failed"):
            for _ in epoch:
                time.sleep(0.005)
            # The blow may fall after the last batch was read; the next epoch then finds no threads.
            end(prefix)
            list(feed.epoch(1))
    assert time.monotonic() - began < 10
    for thread in struck:
        thread.join(5)
        assert not thread.is_alive()


def test_threads_that_died_idle_are_missed(store, monkeypatch):
    monkeypatch.setattr("weathermill.training.reading.LOOK_SECONDS", 0.05)
    with make_feed(store, "train", 1, 2, "cpu", "mapped", threads=2, reader="read") as feed:
        list(feed.epoch(0))
        threads = end("weathermill-read")
        # They wait for work, and are struck when they next come by: with the first read that they are given.
        with pytest.raises(StoreError, match="reading training data failed"):
            for epoch in range(1, 4):
                list(feed.epoch(epoch))
        assert len(threads) == 2


def test_a_checkpoint_whose_thread_fails_is_no_success(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)

    def failing(*_):
        raise LostError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(manager, "_write", failing)
        with pytest.raises(WeathermillError, match="LostError"):
            manager.save({"a": 1}, epoch=0, step=0)
    manager.save({"a": 1}, epoch=0, step=0)
    assert manager.latest()[1] == {"a": 1}
