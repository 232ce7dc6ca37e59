"""A project in a folder of its own, with a small cut of the sample, run by the real Kedro session."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import xarray as xr
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from omegaconf import OmegaConf

SOURCE = Path(__file__).resolve().parents[2]

SMALL = {
    "ingest": {
        "variables": ["geopotential", "temperature", "specific_humidity"],
        "levels": [500, 850],
        "surface_variables": ["2m_temperature"],
    },
    "regrid": {"target": "15x30_poles"},
    "model": {"base_channels": 8, "depth": 2},
    "train": {"epochs": 2, "batch_size": 8, "rollout": [1]},
    "evaluate": {
        "lead_time_hours": 24,
        "headline_channels": ["geopotential_500", "2m_temperature"],
        "map_channels": ["geopotential_500"],
        "map_lead_times_hours": [24],
        "bootstrap_samples": 50,
        "stability_days": 3,
    },
    "forecast": {"lead_time_hours": 24},
}


class Project:
    """A copy of the project's configuration with data of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
        (path / "conf" / "local").mkdir()
        for name in ("pyproject.toml", ".telemetry"):
            shutil.copy(SOURCE / name, path / name)
        (path / "src").mkdir()
        (path / "data" / "01_raw").mkdir(parents=True)
        fixture = path / "tests" / "data"
        fixture.mkdir(parents=True)
        (fixture / "ecmwf_sample").symlink_to(SOURCE / "tests" / "data" / "ecmwf_sample")

    def configure(self, **parameters: Any) -> None:
        """Write the parameters of ``conf/sample`` anew: those that are shipped, with these instead of them."""
        shipped = OmegaConf.load(SOURCE / "conf" / "sample" / "parameters.yml")
        OmegaConf.save(OmegaConf.merge(shipped, parameters), self.path / "conf" / "sample" / "parameters.yml")

    def file(self, *parts: str) -> Path:
        """A path below ``data``."""
        return self.path.joinpath("data", *parts)

    def run(
        self, *pipelines: str, env: str | None = None, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run pipelines in this process."""
        os.chdir(self.path)
        bootstrap_project(self.path)
        with KedroSession.create(self.path, env=env, runtime_params=params) as session:
            return session.run(pipeline_names=list(pipelines) or None)

    def catalog(self, env: str | None = None) -> Any:
        """The catalog."""
        os.chdir(self.path)
        bootstrap_project(self.path)
        with KedroSession.create(self.path, env=env) as session:
            return session.load_context().catalog

    def command(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``kedro`` as a user does."""
        environment = {**os.environ, "DO_NOT_TRACK": "true", "OMP_NUM_THREADS": "1", **variables}
        kedro = str(Path(sys.executable).with_name("kedro"))
        return subprocess.run(
            [kedro, *words], cwd=self.path, env=environment, capture_output=True, text=True, timeout=300
        )

    def experiment_runs(self) -> Any:
        """All MLflow runs as a table, newest first."""
        mlflow.set_tracking_uri(f"sqlite:///{self.path / 'mlflow.db'}")
        return mlflow.search_runs(experiment_names=["weathermill"])


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory) -> Path:
    """48 six-hourly steps of the embedded sample."""
    path = tmp_path_factory.mktemp("sample") / "sample.nc"
    with xr.open_dataset(SOURCE / "data" / "01_raw" / "speedy_t21_sample.nc") as sample:
        cut = sample.isel(valid_time=slice(0, 48)).load()
    cut.to_netcdf(path)
    return path


@pytest.fixture
def small_settings() -> dict[str, Any]:
    """The settings of `project`, to be changed and written again."""
    return copy.deepcopy(SMALL)


@pytest.fixture
def project(tmp_path, small_sample, made_database):
    """Make the project with the small cut and small settings."""
    here = Path.cwd()
    project = Project(tmp_path / "project")
    shutil.copy(made_database, project.path / "mlflow.db")
    shutil.copy(small_sample, project.file("01_raw", "speedy_t21_sample.nc"))
    project.configure(**SMALL)
    yield project
    os.chdir(here)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_sample):
    """A project whose whole pipeline has run once, and has made its database."""
    here = Path.cwd()
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    shutil.copy(small_sample, project.file("01_raw", "speedy_t21_sample.nc"))
    project.configure(**SMALL)
    project.run()
    yield project
    os.chdir(here)
