from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The suite draws the same examples every time; `--hypothesis-profile=explore` draws new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def made_database(tmp_path_factory):
    """An MLflow database without runs, to be copied: MLflow takes seconds to make one."""
    from weathermill.tracking.database import make_database

    path = tmp_path_factory.mktemp("database") / "runs.db"
    make_database(f"sqlite:///{path}")
    return path


@pytest.fixture(autouse=True)
def no_store_in_the_environment():
    """`mlflow.set_tracking_uri` leaves it there, where the next test would take it for what the user has set."""
    yield
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(name, None)
