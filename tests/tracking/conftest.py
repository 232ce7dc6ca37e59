from __future__ import annotations

import shutil

import pytest

from weathermill.tracking.database import make_database


@pytest.fixture(scope="session")
def made_database(tmp_path_factory):
    """An MLflow database without runs, to be copied: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("database") / "runs.db"
    make_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(made_database, tmp_path):
    """Such a database as ``runs.db`` in the test's folder."""
    return shutil.copy(made_database, tmp_path / "runs.db")
