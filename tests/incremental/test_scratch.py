"""Temporary data go with the run that made them, or with the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from weathermill.errors import UnwritableOutputError
from weathermill.incremental.scratch import PREFIX, Scratch, sweep
from weathermill.parameters import validate_parameters

HOLDER = """
import sys, tempfile, time
from pathlib import Path
from weathermill.incremental.scratch import Scratch
print(Scratch(Path(sys.argv[1])).open(), flush=True)
tempfile.mkdtemp()
print("made", flush=True)
time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    folder = Path(process.stdout.readline().strip())
    assert process.stdout.readline() == "made\n"
    yield process, folder
    process.kill()
    process.wait()


def test_temporary_data_lie_in_the_folder_while_it_is_open(tmp_path):
    before = tempfile.gettempdir()
    scratch = Scratch(tmp_path / "new")
    folder = scratch.open()
    made = Path(tempfile.mkdtemp())
    assert made.parent == folder and folder.parent == tmp_path / "new"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(folder))
    scratch.close()
    assert tempfile.gettempdir() == before
    assert not folder.exists()


def test_only_the_folders_of_the_dead_are_removed(tmp_path, holder):
    process, folder = holder
    theirs = tmp_path / "weathermill-other"
    theirs.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(target)
    assert sweep(tmp_path) == []
    assert list(folder.iterdir())
    process.send_signal(signal.SIGKILL)
    process.wait()
    scratch = Scratch(tmp_path)
    scratch.open()
    assert not folder.exists()
    assert theirs.exists() and target.exists() and link.is_symlink()
    scratch.close()


def test_what_torch_compiled_is_kept_where_the_user_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    scratch = Scratch(tmp_path)
    scratch.open()
    scratch.close()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutputError, match="temporary_folder"):
        Scratch(tmp_path / "file" / "below").open()


def test_the_parameter_is_a_path_or_null():
    def parameters(value):
        return {"ingest": {"variables": ["geopotential"]}, "resources": {"temporary_folder": value}}

    assert validate_parameters(parameters("/scratch")).resources.temporary_folder == "/scratch"
    with pytest.raises(Exception, match="temporary_folder"):
        validate_parameters(parameters(3))
    with pytest.raises(Exception, match="temporary_folder"):
        validate_parameters(parameters(""))
