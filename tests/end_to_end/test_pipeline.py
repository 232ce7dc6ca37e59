"""The real pipeline, from files to skill, on a small cut of the sample and on the real ECMWF series."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weathermill.incremental.needs import needs_of
from weathermill.incremental.plan import plan_for
from weathermill.incremental.records import size_of
from weathermill.incremental.selection import combined_pipeline
from weathermill.parameters import validate_parameters
from weathermill.tracking.making_again import make_again
from weathermill.tracking.reproduction import look_up
from weathermill.tracking.settings import TrackingSettings

CHANNELS = {
    *(
        f"{name}_{level}"
        for name in ("geopotential", "temperature", "specific_humidity")
        for level in (500, 850)
    ),
    "2m_temperature",
}


@pytest.fixture(scope="module")
def run(finished):
    runs = finished.experiment_runs().sort_values("start_time")
    return runs.to_dict("records")[0]


def test_every_stage_left_what_the_catalog_says(finished):
    catalog = finished.catalog()
    for name in ("fields", "regridded", "statistics", "tensors", "model", "scores", "forecast"):
        assert catalog.exists(name), name
    for name in ("inspection_report", "model_card", "summary", "scores_table", "training_history"):
        assert catalog.exists(name), name


def test_the_grid_changed_and_areas_integrate_alike(finished):
    catalog = finished.catalog()
    fields, regridded = catalog.load("fields"), catalog.load("regridded")
    assert regridded.sizes["latitude"] == 15 and regridded.sizes["longitude"] == 30
    assert float(regridded["latitude"][0]) == 90.0
    from weathermill.fields.grids import area_weights

    means = [
        float(
            (
                d["temperature"].isel(time=5).mean("longitude")
                * xr.DataArray(area_weights(d.latitude.values), dims="latitude")
            )
            .mean("latitude")
            .sel(level=850)
        )
        for d in (fields, regridded)
    ]
    # ESMF's cells have great-circle edges, ours parallels: coarse cells differ a little in area.
    assert means[0] == pytest.approx(means[1], rel=3e-4)


def test_regridding_conserves_every_variable_over_its_own_cells(finished):
    metrics = json.loads(finished.file("08_reporting", "sample", "regrid_metrics.json").read_text())
    errors = {name: value for name, value in metrics.items() if "/conservation_error/" in name}
    assert len(errors) == 4
    # Fields are float32; the weights themselves conserve to 1e-12.
    assert max(errors.values()) < 1e-7


def test_tensors_are_the_normalised_fields(finished):
    catalog = finished.catalog()
    store, regridded = catalog.load("tensors"), catalog.load("regridded")
    assert set(store.channels.names) == CHANNELS
    train = [i for start, stop in store.splits["train"] for i in range(start, stop)]
    i = store.channels.index("temperature_850")
    stored = store.physical(0, len(store))[:, i]
    np.testing.assert_allclose(stored, regridded["temperature"].sel(level=850).values, atol=0.05)
    values = store.decoded(0, len(store))[train].astype(np.float64)
    weights = store.area_weights.reshape(-1, 1)
    np.testing.assert_allclose((values * weights).mean(axis=(0, 2, 3)), 0.0, atol=2e-3)
    np.testing.assert_allclose((values**2 * weights).mean(axis=(0, 2, 3)), 1.0, atol=5e-3)


def test_scores_cover_channels_leads_and_baselines(finished):
    scores = finished.catalog().load("scores")
    assert set(scores["channel"].values) == CHANNELS
    assert list(scores["lead_time"].values) == [6, 12, 18, 24]
    assert {"forecast", "persistence", "climatology"} <= set(scores["source"].values)
    assert np.isfinite(scores["rmse"].sel(region="global")).all()


def test_the_table_says_the_same_as_the_dataset(finished):
    scores = finished.catalog().load("scores")
    table = pd.read_csv(finished.file("07_model_output", "sample", "scores.csv"))
    row = table[
        (table.source == "forecast")
        & (table.channel == "geopotential_500")
        & (table.region == "global")
        & (table.lead_time_h == 24)
    ]
    expected = scores["rmse"].sel(
        source="forecast", channel="geopotential_500", region="global", lead_time=24
    )
    assert float(row["rmse"].iloc[0]) == pytest.approx(float(expected))


def test_the_forecast_is_cf_in_physical_units(finished):
    forecast = xr.open_dataset(
        finished.file("07_model_output", "sample", "forecast.nc"), decode_timedelta=False
    )
    assert forecast["temperature"].attrs["units"] == "K"
    assert 200 < float(forecast["temperature"].sel(level=850).mean()) < 320
    assert forecast.sizes["lead_time"] == 4
    assert forecast["init_time"].attrs["standard_name"] == "forecast_reference_time"
    assert (
        forecast["time"].values - forecast["init_time"].values == np.timedelta64(6, "h") * np.arange(1, 5)
    ).all()


def test_the_summary_tells_skill_and_that_the_data_are_simulated(finished):
    summary = finished.file("08_reporting", "sample", "summary.txt").read_text()
    for word in ("persistence", "climatology", "Z500", "simulated"):
        assert word in summary, word


def test_the_command_skips_what_stands_and_ends_with_what_to_open(finished):
    result = finished.command("run")
    assert result.returncode == 0, result.stderr
    assert "ingest: skipped; unchanged" in result.stderr
    assert "to run" not in result.stderr
    for words in ("RMSE of forecasts", "figures", "model_card.html", "make ui"):
        assert words in result.stdout, words


def test_a_session_in_a_script_skips_what_stands_and_gives_what_the_pipeline_makes(finished, caplog):
    before = finished.file("06_models", "sample", "model", "model.safetensors").stat()
    with caplog.at_level("INFO", logger="weathermill.incremental.runner"):
        given = finished.run("train", "evaluate")
    assert "train: skipped; unchanged" in caplog.text and "to run" not in caplog.text
    assert "persistence" in given["summary"].load()
    assert finished.file("06_models", "sample", "model", "model.safetensors").stat() == before


def test_the_model_card_says_that_the_data_are_simulated_and_names_its_run(finished, run):
    card = finished.file("08_reporting", "sample", "model_card.html").read_text()
    assert "SIMULATED DATA" in card and run["run_id"] in card
    assert "needed on the device" in card and "Waves 1-3" in card


def test_the_run_is_in_mlflow(run):
    assert run["status"] == "FINISHED"
    assert run["params.train.epochs"] == "2"
    assert run["params.regrid.target"] == "15x30_poles"
    assert run["metrics.rmse/geopotential_500/24h"] > 0
    assert run["metrics.train/loss"] > 0
    assert run["metrics.memory/predicted_gib"] > 0
    ledger = {entry.path for entry in mlflow.MlflowClient().list_artifacts(run["run_id"], "memory")}
    assert ledger == {f"memory/ledger.{suffix}" for suffix in ("csv", "json", "png", "txt")}
    assert "tags.mlflow.source.git.commit" not in run or len(run["tags.mlflow.source.git.commit"]) == 40


def test_metrics_equal_the_scores(finished, run):
    scores = finished.catalog().load("scores")
    expected = scores["rmse"].sel(source="forecast", channel="2m_temperature", region="global", lead_time=24)
    assert run["metrics.rmse/2m_temperature/24h"] == pytest.approx(float(expected), rel=1e-6)


def test_lineage_is_complete(run):
    inputs = mlflow.get_run(run["run_id"]).inputs.dataset_inputs
    names = {entry.dataset.name.split(":")[0] for entry in inputs}
    assert {"raw_fields", "regrid_weights", "statistics", "tensors"} <= names
    assert all(len(entry.dataset.digest) >= 16 for entry in inputs)


def test_the_logged_model_takes_physical_units(finished, run):
    logged = mlflow.search_logged_models(
        experiment_ids=[run["experiment_id"]],
        filter_string=f"source_run_id = '{run['run_id']}'",
        output_format="list",
    )[0]
    model = mlflow.pyfunc.load_model(logged.model_uri)
    catalog = finished.catalog()
    store, forecaster = catalog.load("tensors"), catalog.load("model")
    state = store.physical(3, 4)
    out = model.predict(state, params={"steps": 2})["forecast"]
    assert out.shape == (1, 2, len(CHANNELS), 15, 30)
    expected = np.stack(list(forecaster.rollout_physical(state, 2)), axis=1)
    np.testing.assert_allclose(out, expected, rtol=1e-4)
    assert 200 < out[0, 0, store.channels.index("temperature_850")].mean() < 320


def test_the_alias_points_to_the_runs_model(run):
    version = mlflow.MlflowClient().get_model_version_by_alias("weathermill-sample", "newest")
    assert version.run_id == run["run_id"]
    loaded = mlflow.pyfunc.load_model("models:/weathermill-sample@newest")
    assert set(loaded.metadata.metadata["channel"]) == CHANNELS


def test_weights_are_reused_on_the_next_run(finished, caplog):
    weights = finished.file("03_primary", "sample", "regrid_weights.nc")
    before = weights.stat().st_mtime_ns
    finished.run("regrid")
    assert weights.stat().st_mtime_ns == before
    finished.run("regrid", params={"regrid": {"method": "bilinear"}})
    assert weights.stat().st_mtime_ns > before
    finished.run("regrid")


def test_the_regrid_report_is_finite(finished):
    report = json.loads(finished.file("08_reporting", "sample", "regrid_report.json").read_text())
    assert report["provider"]


def test_each_pipeline_runs_by_itself(finished):
    for name in ("normalise", "tensors", "evaluate", "forecast"):
        finished.run(name)


def test_many_forecasts_are_streamed_to_one_store(finished):
    first = xr.open_dataset(finished.file("01_raw", "speedy_t21_sample.nc"))["valid_time"].values
    times = [str(first[3]), str(first[9])]
    finished.run("forecast_batch", params={"forecast": {"initial_times": times}})
    stored = finished.catalog().load("forecasts")
    assert stored["temperature"].sizes["init_time"] == 2 and stored.sizes["lead_time"] == 4
    assert (stored["init_time"].values == first[[3, 9]]).all()
    assert np.isfinite(stored["temperature"]).all()


def test_the_real_ecmwf_series_runs_through_every_stage(project):
    project.configure()
    project.run(env="ecmwf_sample", params={"train": {"epochs": 1}})
    scores = project.catalog(env="ecmwf_sample").load("scores")
    assert scores.sizes["channel"] == 30
    assert np.isfinite(scores["rmse"].sel(source="forecast", region="global")).all()
    forecast = xr.open_dataset(
        project.file("07_model_output", "ecmwf_sample", "forecast.nc"), decode_timedelta=False
    )
    assert 200 < float(forecast["temperature"].mean()) < 320


def test_memory_and_disk_were_predicted_and_are_compared_with_what_was_taken(finished, run):
    stages = ("inspect", "ingest", "regrid", "compute_statistics", "write_tensors", "train", "evaluate")
    for name in stages:
        measured, predicted = (
            run[f"metrics.stage/{name}/{kind}_memory_gib"] for kind in ("peak", "predicted")
        )
        # Predictions are for a process of its own; this one holds what earlier tests have left, too.
        assert 0.5 < predicted / measured < 1.5, name
    catalog = finished.catalog()
    parameters = validate_parameters(catalog.load("parameters"))
    plan = [replace(entry, runs=True) for entry in plan_for(combined_pipeline(), catalog)]
    needed = needs_of(plan, catalog, parameters).disk
    made = {path: size_of(path) for path in needed if path.exists()}
    assert {"tensors", "checkpoints", "model", "figures"} <= {path.name for path in made}
    for path, size in made.items():
        assert size <= needed[path], path
    assert sum(needed.values()) < 40 * sum(made.values())


def test_a_resumed_run_is_made_again_from_its_first_step_beside_what_stands(finished):
    shutil.rmtree(finished.file("06_models", "sample", "model"))
    finished.run("train", params={"train": {"resume": True}})
    resumed = finished.experiment_runs().iloc[0]
    assert resumed["tags.stages.run"] == "train"
    stood = {path: path.read_bytes() for path in finished.file("06_models").rglob("*") if path.is_file()}
    settings = TrackingSettings()
    reproduction = look_up(resumed["run_id"], settings, finished.path)
    comparison = make_again(reproduction, finished.path, settings)
    assert comparison.equal and "model" in comparison.same_bytes
    client = mlflow.MlflowClient()
    assert [m.step for m in client.get_metric_history(comparison.run_id, "validation/loss")] == [4, 8]
    assert client.get_run(comparison.run_id).data.tags["reproduces.run_id"] == resumed["run_id"]
    assert not client.search_model_versions(f"run_id = '{comparison.run_id}'")
    assert {path: path.read_bytes() for path in stood} == stood
    assert not finished.file("reproductions").exists()
