from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from safetensors import SafetensorError

from weathermill.errors import CheckpointError, UnwritableOutputError
from weathermill.training import checkpoint as module
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.checkpoint_files import as_os_error


def state(k):
    return {"weights": torch.full((50, 20), float(k)), "optimiser": {0: {"m": torch.arange(5) * k}}, "k": k}


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_round_trip(tmp_path):
    manager = CheckpointManager(tmp_path)
    assert manager.latest() is None
    assert manager.best() is None
    assert manager.run_id() is None
    manager.save(state(3), epoch=1, step=30, metric=0.5, run_id="abc")
    checkpoint, loaded = CheckpointManager(tmp_path).latest()
    assert (checkpoint.epoch, checkpoint.step, checkpoint.metric, checkpoint.run_id) == (1, 30, 0.5, "abc")
    assert loaded["k"] == 3
    assert torch.equal(loaded["weights"], torch.full((50, 20), 3.0))
    assert torch.equal(loaded["optimiser"][0]["m"], torch.arange(5) * 3)
    assert CheckpointManager(tmp_path).run_id() == "abc"


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    manager = CheckpointManager(tmp_path, keep=2)
    for k, metric in enumerate([0.9, 0.1, 0.5, None, 0.4, 0.3]):
        manager.save(state(k), epoch=k, step=10 * k, metric=metric)
    assert [c.step for c in manager.all()] == [10, 40, 50]
    assert manager.best()[1]["k"] == 1
    assert manager.latest()[1]["k"] == 5


def test_a_deletion_that_was_killed_leaves_no_damaged_checkpoint(tmp_path, monkeypatch, caplog):
    class Killed(BaseException):
        pass

    def half(path, **_):
        (path / "tensors.safetensors").unlink()
        raise Killed

    manager = CheckpointManager(tmp_path, keep=1, background=False)
    manager.save(state(1), epoch=1, step=10)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", half)
        with pytest.raises(Killed):
            manager.save(state(2), epoch=2, step=20)
    assert len(list(tmp_path.iterdir())) == 2
    again = CheckpointManager(tmp_path, keep=1)
    assert [(path.name, fault) for path, fault in again.verify()] == [("000001-step-20", None)]
    assert again.latest()[1]["k"] == 2
    again.save(state(3), epoch=3, step=30)
    assert [path.name for path in tmp_path.iterdir()] == ["000002-step-30"]
    assert not caplog.records


def test_a_damaged_checkpoint_is_told_of_once(tmp_path, caplog):
    manager = CheckpointManager(tmp_path)
    manager.save(state(1), epoch=1, step=10)
    (manager.all()[0].path / "state.json").unlink()
    for k in (2, 3, 4):
        manager.save(state(k), epoch=k, step=10 * k)
    assert [record.message.count("000000-step-10") > 0 for record in caplog.records] == [True]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, name, damage):
    manager = CheckpointManager(tmp_path)
    manager.save(state(1), epoch=1, step=10, metric=0.2)
    manager.save(state(2), epoch=2, step=20, metric=0.1)
    path = manager.all()[-1].path / name
    if damage == "flip":
        flip(path, path.stat().st_size // 2)
    elif damage == "truncate":
        os.truncate(path, path.stat().st_size - 20)
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        checkpoint, loaded = manager.latest()
        assert manager.best()[1]["k"] == 1
    assert loaded["k"] == 1
    assert "Using the checkpoint before a damaged one" in caplog.text
    assert "000001-step-20" in caplog.text
    manager.discard_after(checkpoint)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["000000-step-10"]


def test_all_damaged_is_an_error(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(state(1), epoch=1, step=10)
    flip(manager.all()[0].path / "state.json", 3)
    with pytest.raises(CheckpointError, match="All 1 checkpoints are damaged"):
        manager.latest()


@pytest.mark.parametrize("background", [False, True])
def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, background):
    manager = CheckpointManager(tmp_path, keep=1, background=background)
    manager.save(state(1), epoch=1, step=10)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(UnwritableOutputError, match="disk is full"):
            manager.save(state(2), epoch=2, step=20)
    assert manager.latest()[1]["k"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["000000-step-10"]
    manager.save(state(3), epoch=3, step=30)
    assert manager.latest()[1]["k"] == 3


def test_errno_is_recovered_from_safetensors():
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert as_os_error(error).errno == errno.ENOSPC


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_really_full_disk_keeps_the_last_checkpoint(small_disk):
    manager = CheckpointManager(small_disk, keep=1)
    manager.save({"w": torch.zeros(150_000), "k": 1}, epoch=1, step=10)
    with pytest.raises(UnwritableOutputError, match="disk is full"):
        manager.save({"w": torch.zeros(150_000), "k": 2}, epoch=2, step=20)
    assert manager.latest()[1]["k"] == 1
    assert [p.name for p in small_disk.iterdir()] == ["000000-step-10"]


def test_background_failure_raises_from_wait_or_warns_at_the_next_save(tmp_path, monkeypatch, caplog):
    manager = CheckpointManager(tmp_path)
    original = module.save_file

    def full(tensors, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    manager.save(state(1), epoch=1, step=10, wait=False)
    with pytest.raises(UnwritableOutputError, match="disk is full"):
        manager.wait()
    manager.save(state(2), epoch=2, step=20, wait=False)
    manager._thread.join()
    monkeypatch.setattr(module, "save_file", original)
    with caplog.at_level(logging.WARNING):
        manager.save(state(3), epoch=3, step=30, wait=False)
    assert "was not written" in caplog.text
    assert manager.latest()[1]["k"] == 3


def test_verify_names_what_is_damaged(tmp_path):
    manager = CheckpointManager(tmp_path)
    for k in (1, 2):
        manager.save(state(k), epoch=k, step=k)
    damaged = manager.all()[0].path / "tensors.safetensors"
    flip(damaged, damaged.stat().st_size - 1)
    (first, fault), (second, none) = manager.verify()
    assert (first.name, second.name) == ("000000-step-1", "000001-step-2")
    assert "tensors.safetensors does not match" in str(fault)
    assert none is None


def test_background_saves_what_the_state_was(tmp_path):
    manager = CheckpointManager(tmp_path, background=True)
    weights = torch.zeros(200_000)
    manager.save({"w": weights}, epoch=1, step=1, wait=False)
    weights.add_(1)
    assert manager.latest()[1]["w"].sum() == 0


def test_fresh_training_sets_earlier_checkpoints_aside(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(state(1), epoch=1, step=10)
    manager.set_aside()
    assert manager.latest() is None
    assert CheckpointManager(tmp_path / "superseded").latest()[1]["k"] == 1
    manager.save(state(2), epoch=1, step=10)
    manager.set_aside()
    assert CheckpointManager(tmp_path / "superseded").latest()[1]["k"] == 2


def test_nothing_is_pickled(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(state(1), epoch=1, step=10)
    folder = manager.all()[0].path
    json.loads((folder / "state.json").read_text())
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".json", ".safetensors"]


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutputError):
        CheckpointManager(tmp_path / "file/checkpoints")


SAVING = """
import sys, torch
from weathermill.training.checkpoint import CheckpointManager
manager = CheckpointManager(sys.argv[1], keep=2)
found = manager.latest()
k = found[1]["k"] if found else 0
print("ready", flush=True)
while True:
    k += 1
    manager.save({"w": torch.full((300_000,), float(k)), "k": k}, epoch=k, step=k)
"""


def test_kill_during_saving_leaves_an_intact_checkpoint(tmp_path):
    """The process does nothing but save, so that nearly every kill falls into a save."""
    last = 0
    for delay in (0.11, 0.23, 0.17, 0.31):
        process = subprocess.Popen([sys.executable, "-c", SAVING, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.wait()
        _, loaded = CheckpointManager(tmp_path, keep=2).latest()
        assert loaded["k"] > last
        assert torch.equal(loaded["w"], torch.full((300_000,), float(loaded["k"])))
        last = loaded["k"]
