"""Atomic replacement and plain errors of local datasets."""

from __future__ import annotations

import errno
import os

import pytest
from kedro.io import DatasetError

from weathermill.datasets.local import plain_error, staged, writable
from weathermill.errors import StoreError, UnwritableOutputError


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path):
    target = tmp_path / "scores.nc"
    target.write_text("old")
    with pytest.raises(RuntimeError), staged(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["scores.nc"]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path / "store") as partial:
        partial.mkdir()
        (partial / "chunk").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "store"
    target.mkdir()
    (target / "old").touch()
    with staged(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["store"]


def test_a_left_over_of_a_killed_run_is_removed_first(tmp_path):
    left_over = tmp_path / "store.partial"
    left_over.mkdir()
    (left_over / "stale").touch()
    with staged(tmp_path / "store") as partial:
        partial.mkdir()
    assert names(tmp_path / "store") == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_refusals_to_write_become_one_plain_error(tmp_path, number):
    with pytest.raises(UnwritableOutputError, match=os.strerror(number)), writable(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_refusal_that_another_dataset_wrapped_is_found(tmp_path):
    with (
        pytest.raises(UnwritableOutputError, match="No space left on device") as caught,
        staged(tmp_path / "a"),
    ):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise DatasetError("Failed while saving data") from error
    assert caught.value.where == str(tmp_path / "a")
    with pytest.raises(DatasetError), staged(tmp_path / "a"):
        raise DatasetError("of another kind")


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UnwritableOutputError), staged(tmp_path / "data" / "store"):
        pass


def test_other_operating_system_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError), writable(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_our_error_is_found_behind_kedros():
    ours = StoreError("does not exist yet")
    try:
        try:
            raise ours
        except StoreError as error:
            raise DatasetError("Failed while loading") from error
    except DatasetError as error:
        assert plain_error(error) is ours
    assert plain_error(ValueError("other")) is None
