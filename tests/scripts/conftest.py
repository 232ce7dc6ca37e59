from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The scripts are no package: they import one another as a run from their own folder does.
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture
def project_root() -> Path:
    return ROOT
