"""xESMF's own test suite passes whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_xesmf_suite.py"
# The count of xESMF 0.9.2; other versions have other counts.
TESTS = {"0.9.2": 142}


@pytest.mark.slow
def test_xesmf_suite_passes():
    """All of it: about a minute and a half on two cores."""
    import xesmf

    pytest.importorskip("distributed", reason="xESMF's suite starts Dask clusters")
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "-rfE"], capture_output=True, text=True, timeout=540, check=False
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said[-6000:]
    count = re.search(r"(\d+) passed", said)
    assert count, said[-2000:]
    assert "skipped" not in said and "deselected" not in said, said[-2000:]
    if xesmf.__version__ in TESTS:
        assert int(count[1]) == TESTS[xesmf.__version__]
