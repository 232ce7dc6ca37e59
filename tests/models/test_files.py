"""A save that is interrupted at any of its moments leaves a whole model: the one before, or the new one."""

from __future__ import annotations

import pytest

from weathermill.errors import ModelError
from weathermill.models import files
from weathermill.models.files import CONFIG_FILE, PREVIOUS_FILE, WEIGHTS_FILE, read_model, write_model


class Killed(BaseException):
    pass


def write(folder, text, monkeypatch=None, dies_at=None):
    """Save a model whose weights and metadata tell which it is; dies just before the n-th step of writing."""
    if dies_at is None:
        write_model(folder, text.encode(), {"name": text})
        return
    count = 0

    def counted(step):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == dies_at:
                raise Killed
            return step(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", counted(files.write_atomic))
        patch.setattr(files, "_link", counted(files._link))
        patch.setattr(files.Path, "unlink", counted(files.Path.unlink))
        with pytest.raises(Killed):
            write_model(folder, text.encode(), {"name": text})


def read(folder):
    metadata, data = read_model(folder)
    assert metadata["name"] == data.decode()
    return metadata["name"]


# Removing what was kept, keeping, weights, JSON, removing.
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("again", [1, 2, 3, 4, 5])
def test_two_interrupted_saves_leave_a_whole_model(tmp_path, monkeypatch, dies_at, again):
    write(tmp_path, "first")
    write(tmp_path, "second", monkeypatch, dies_at)
    assert read(tmp_path) == ("second" if dies_at == 5 else "first")
    if dies_at == 4 and again > 3:
        # The weights are none that the JSON names: they need not be kept, which makes two steps less.
        again -= 2
    write(tmp_path, "third", monkeypatch, again)
    assert read(tmp_path) in {"first", "second", "third"}
    write(tmp_path, "fourth")
    assert read(tmp_path) == "fourth"
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_the_model_before_is_told_to_be_that(tmp_path, monkeypatch, caplog):
    write(tmp_path, "first")
    write(tmp_path, "second", monkeypatch, 4)
    assert (tmp_path / PREVIOUS_FILE).read_bytes() == b"first"
    assert read(tmp_path) == "first"
    assert "interrupted" in caplog.text


def test_weights_that_belong_to_nothing_are_refused(tmp_path, monkeypatch):
    write(tmp_path, "first")
    (tmp_path / WEIGHTS_FILE).write_bytes(b"other")
    (tmp_path / PREVIOUS_FILE).write_bytes(b"another")
    with pytest.raises(ModelError, match="checksum"):
        read_model(tmp_path)
    (tmp_path / CONFIG_FILE).unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path)


def test_where_there_are_no_links_a_copy_is_kept(tmp_path, monkeypatch):
    write(tmp_path, "first")
    monkeypatch.setattr(files.os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links here")))
    write(tmp_path, "second", monkeypatch, 4)
    assert read(tmp_path) == "first"
