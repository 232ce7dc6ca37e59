"""Two runs of a project, compared by the command and by the stage of the catalog."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from weathermill.cli import main
from weathermill.datasets.local import plain_error
from weathermill.tracking import runs
from weathermill.tracking.settings import TrackingSettings
from weathermill.verification.scores import ScoreAccumulator


def scores(noise, seed):
    latitude, longitude, leads, n_init = np.linspace(75, -75, 6), np.arange(8) * 45.0, [6, 24], 20
    accumulator = ScoreAccumulator(
        ["geopotential_500"], leads, np.cos(np.deg2rad(latitude)), latitude=latitude, longitude=longitude
    )
    truth = np.random.default_rng(1).normal(size=(n_init, 2, 1, 6, 8)).astype(np.float32)
    error = noise * np.random.default_rng(seed).normal(size=truth.shape).astype(np.float32)
    times = pd.date_range("2001-01-01", periods=n_init, freq="6h").to_numpy()
    accumulator.update(truth + error, truth, np.zeros_like(truth), times)
    # One region is enough to draw.
    return accumulator.result().sel(region=["global"])


@pytest.fixture
def pair(project):
    """A project with two runs that hold scores: the second one is better."""
    experiment = runs.connect(TrackingSettings(), project.path)
    client = mlflow.MlflowClient()
    ids = []
    for position, noise in enumerate((0.8, 0.4)):
        run = client.create_run(experiment, run_name=f"run {position}")
        path = project.path / "scores.nc"
        scores(noise, position).to_netcdf(path, engine="h5netcdf")
        client.log_artifact(run.info.run_id, str(path), "evaluate")
        client.set_terminated(run.info.run_id)
        ids.append(run.info.run_id)
    return project, *ids


def test_the_command_prints_writes_and_logs(pair, monkeypatch):
    project, first, second = pair
    monkeypatch.chdir(project.path)
    result = CliRunner().invoke(main, ["compare", first[:10], second, "--resamples", "200", "--log"])
    assert result.exit_code == 0, result.output
    assert f"RMSE of {second[:8]} relative to {first[:8]}" in result.output
    assert "significantly better in 2 and worse in 0" in result.output
    folder = project.file("08_reporting", "comparisons", f"{first[:8]}..{second[:8]}")
    assert {"comparison.html", "comparison.csv", "comparison.nc", "scorecard_global.png"} <= {
        path.name for path in folder.iterdir()
    }
    logged = mlflow.MlflowClient().list_artifacts(second, f"compare/{first[:8]}")
    assert any(entry.path.endswith("comparison.html") for entry in logged)

    refused = CliRunner().invoke(main, ["compare", first, "unheard-of"])
    assert refused.exit_code == 1
    assert "there is no MLflow run 'unheard-of'" in refused.output and "Traceback" not in refused.output


def test_the_stage_needs_two_runs_and_writes_what_the_catalog_says(pair):
    project, first, second = pair
    with pytest.raises(BaseException) as caught:
        project.run("compare")
    assert "names 0 runs, not two" in str(plain_error(caught.value))
    parameters = {"compare": {"runs": f"{first[:8]}..{second[:8]}", "bootstrap_samples": 200}}
    project.run("compare", params=parameters)
    folder = project.file("08_reporting", "sample", "comparison")
    assert {"comparison.html", "comparison.csv", "comparison.nc", "figures", "summary.txt"} <= {
        path.name for path in folder.iterdir()
    }
    change = project.catalog().load("comparison")["rmse_change"].sel(region="global")
    np.testing.assert_allclose(change, -50, atol=4)
    run = mlflow.MlflowClient().get_run(project.experiment_runs()["run_id"][0])
    logged = {entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id, "compare")}
    assert "compare/comparison.html" in logged
