"""Peaks of memory are measured, and disk space is looked at first."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from weathermill.errors import ResourceError
from weathermill.incremental import resources

MIB = 2**20


@pytest.mark.parametrize("kernel", [True, False])
def test_the_peak_is_that_of_the_stage_alone(kernel):
    """Two stages, the larger one first: the second must not inherit the peak of the first."""
    script = f"""
import time
import numpy as np
from weathermill.incremental import resources
if not {kernel}:
    resources._reset_mark = lambda: False
memory = resources.PeakMemory()
def stage(mib):
    memory.start()
    held = np.ones(mib * 2**17)
    time.sleep(0.3)
    del held
    return memory.bytes() / 2**20
import gc
large = stage(300); gc.collect(); small = stage(50)
print(large, small)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    large, small = map(float, out.split())
    assert 300 < large < 600
    assert large - 300 < small < large - 150


def test_a_run_that_finds_no_room_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100 * MIB, 90 * MIB, 10 * MIB))
    needed = {tmp_path / "a": 6 * MIB, tmp_path / "new" / "b": 3 * MIB}
    assert resources.require_disk(needed) == 9 * MIB
    with pytest.raises(ResourceError, match=r"about 12\.0 MiB and 10\.0 MiB are free"):
        resources.require_disk({**needed, tmp_path / "c": 3 * MIB})
