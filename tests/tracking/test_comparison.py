"""Two runs of a real MLflow store are compared by the scores that they left, or it is said why they cannot be."""

from __future__ import annotations

import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from weathermill.errors import ParameterError, TrackingError, VerificationError
from weathermill.tracking import runs
from weathermill.tracking.comparison import compare_runs, parse_runs
from weathermill.tracking.settings import TrackingSettings
from weathermill.verification import comparison_page
from weathermill.verification.scores import ScoreAccumulator

CHANNELS, LEADS, SHAPE = ("geopotential_500", "2m_temperature"), (6, 24), (6, 8)


def make_scores(noise, *, n_init=24, start="2001-01-01", shape=SHAPE, seed=0, freq="6h"):
    """Forecasts whose error has a standard deviation of ``noise``."""
    height, width = shape
    latitude, longitude = 90 - 180 / height * (np.arange(height) + 0.5), np.arange(width) * 360.0 / width
    accumulator = ScoreAccumulator(
        CHANNELS,
        LEADS,
        np.cos(np.deg2rad(latitude)),
        latitude=latitude,
        longitude=longitude,
        units=["m2 s-2", "K"],
        attrs={
            "grid": f"{height} x {width}",
            "grid_digest": f"digest of {shape}",
            "tensors": "t",
            "simulated": 1,
        },
    )
    size = (n_init, len(LEADS), len(CHANNELS), *shape)
    truth = np.random.default_rng(7).normal(size=size).astype(np.float32)
    error = noise * np.random.default_rng(seed).normal(size=size).astype(np.float32)
    times = pd.date_range(start, periods=n_init, freq=freq).to_numpy()
    accumulator.update(truth + error, truth, np.zeros_like(truth), times)
    return accumulator.result()


@pytest.fixture(scope="module")
def store(tmp_path_factory, made_database):
    """One store for all tests."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(made_database, folder / "runs.db")
    before = mlflow.get_tracking_uri()
    settings = TrackingSettings(tracking_uri="sqlite:///runs.db", artifact_location="artifacts")
    yield folder, runs.connect(settings, folder)
    mlflow.set_tracking_uri(before)


@pytest.fixture
def log_run(store, tmp_path):
    folder, experiment = store
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'runs.db'}")
    client = mlflow.MlflowClient()

    def log(name, scores=None, **params):
        run = client.create_run(experiment, run_name=name, tags={"pipelines": "all", "env": "base"})
        for key, value in params.items():
            client.log_param(run.info.run_id, key.replace("__", "."), value)
        if scores is not None:
            path = tmp_path / "scores.nc"
            scores.to_netcdf(path, engine="h5netcdf")
            client.log_artifact(run.info.run_id, str(path), "evaluate")
            client.log_metric(run.info.run_id, "skill/rmse_ratio_persistence/mean/6h", 0.5)
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    return log


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the scorecards empty, for pages of which the text alone counts."""
    monkeypatch.setattr(comparison_page, "comparison_scorecard", lambda *_, **__: Figure(figsize=(1, 1)))


def test_the_change_is_from_the_first_run_to_the_second(log_run, tmp_path):
    worse = log_run("old", make_scores(0.8), train__epochs=3)
    better = log_run("<b>new</b>", make_scores(0.4, seed=1), train__epochs=9)
    comparison = compare_runs(worse[:9], better, n_resamples=200)
    np.testing.assert_allclose(comparison.dataset["rmse_change"].sel(region="global"), -50, atol=3)
    assert comparison.dataset["significant"].sel(region="global").all()
    assert comparison.names == (better[:8], worse[:8])
    assert comparison.differences == [("train.epochs", "9", "3")]
    assert comparison.notes == []
    assert "significantly better in 4 and worse in 0" in comparison.summary()

    folder = comparison.log()
    page = mlflow.artifacts.load_text(f"runs:/{better}/{folder}/comparison.html")
    assert "<b>new</b>" not in page and "&lt;b&gt;new&lt;/b&gt;" in page
    assert "train.epochs" in page and "SIMULATED DATA" in page and page.count("data:image/png") == 4
    logged = {entry.path for entry in mlflow.MlflowClient().list_artifacts(better, folder)}
    assert {
        f"{folder}/comparison.html",
        f"{folder}/scorecard_global.png",
        f"{folder}/comparison.csv",
    } <= logged
    table = pd.read_csv(
        mlflow.MlflowClient().download_artifacts(better, f"{folder}/comparison.csv", str(tmp_path))
    )
    assert len(table) == comparison.dataset["rmse_change"].size
    # Its own copy of scores does not hide the run's.
    assert compare_runs(worse, better, n_resamples=100).dataset.sizes["channel"] == 2


def test_seasons_are_compared_where_there_are_several(log_run, tmp_path):
    year = {"n_init": 30, "freq": "6D", "start": "2001-01-05"}
    # Two regions are enough to draw.
    worse, better = (
        log_run(name, make_scores(noise, seed=seed, **year).sel(region=["global", "tropics"]))
        for name, noise, seed in (("a", 0.8, 0), ("b", 0.4, 1))
    )
    comparison = compare_runs(worse, better, n_resamples=100)
    assert comparison.dataset["season"].values.tolist() == ["DJF", "MAM", "JJA"]
    assert (
        "JJA (5 initial times): mean RMSE change -49.1 %, in too few independent blocks"
        in comparison.summary()
    )
    written = {path.name for path in comparison.write(tmp_path / "out")}
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2 + 3 * 2
    for words in (
        "<h2>By season</h2>",
        "<h3>DJF, 9 to 10 initial times</h3>",
        "Scorecards of JJA",
        "too few independent blocks for any",
    ):
        assert words in page, words
    assert {"scorecard_tropics_MAM.png", "scorecard_global.png", "comparison.nc"} <= written
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert len(table) == 4 * comparison.dataset["rmse_change"].size
    assert table["season"].unique().tolist() == ["all", "DJF", "MAM", "JJA"]
    with xr.open_dataset(tmp_path / "out" / "comparison.nc") as stored:
        assert stored["season_rmse_change"].sizes["season"] == 3


def test_the_page_of_one_season_says_which(log_run, undrawn):
    first, second = log_run("c", make_scores(0.8)), log_run("d", make_scores(0.4))
    assert "All forecasts verify in DJF" in compare_runs(first, second, n_resamples=100).page()


def test_equal_runs_do_not_differ(log_run):
    first, second = log_run("a", make_scores(0.5)), log_run("b", make_scores(0.5))
    comparison = compare_runs(first, second, n_resamples=200)
    assert float(np.abs(comparison.dataset["rmse_change"]).max()) == 0
    assert not comparison.dataset["significant"].any()


def test_runs_are_found_by_any_of_their_names_and_unknown_ones_are_told(log_run):
    first = log_run("the only one", make_scores(0.5))
    second = log_run("evaluated later", make_scores(0.4))
    log_run("without scores")
    found = compare_runs("the only one", "newest", n_resamples=100)
    assert (found.before.info.run_id, found.after.info.run_id) == (first, second)
    assert compare_runs(first[:10], "evaluated later", n_resamples=100).after.info.run_id == second
    with pytest.raises(
        TrackingError, match=f"(?s)no MLflow run 'nothing'.*runs with scores.*{second[:8]}"
    ) as unknown:
        compare_runs("nothing", second)
    assert "without scores" not in unknown.value.what


def test_runs_without_scores_and_one_run_twice_are_refused(log_run):
    with_scores, without = log_run("a", make_scores(0.5)), log_run("prepare base")
    with pytest.raises(VerificationError, match=r"holds no scores.nc(?s:.*)force=evaluate"):
        compare_runs(with_scores, without)
    with pytest.raises(VerificationError, match="one and the same run"):
        compare_runs(with_scores, with_scores[:10])
    with pytest.raises(VerificationError, match="hold no 'regression', but forecast"):
        compare_runs(with_scores, log_run("b", make_scores(0.5)), source="regression")


def test_other_grids_and_periods_are_refused(log_run):
    here = log_run("a", make_scores(0.5))
    with pytest.raises(VerificationError, match=r"different grids, 6 x 8 .* and 8 x 12"):
        compare_runs(here, log_run("b", make_scores(0.5, shape=(8, 12))))
    with pytest.raises(VerificationError, match="0 init_time in common"):
        compare_runs(here, log_run("c", make_scores(0.5, start="2011-01-01")))


def test_what_limits_a_comparison_is_said(log_run, undrawn):
    other = make_scores(0.5, start="2001-01-03").assign_attrs(tensors="other", climatology="weekly")
    comparison = compare_runs(log_run("a", make_scores(0.5)), log_run("b", other), n_resamples=100)
    notes = " ".join(comparison.notes)
    assert "Only 16 initial times" in notes
    assert "different training stores" in notes and "climatologies differ" in notes
    assert "Only 16 initial times" in comparison.page()


def test_damaged_scores_are_told(log_run, store):
    good, bad = log_run("a", make_scores(0.5)), log_run("b", make_scores(0.5))
    path = next((store[0] / "artifacts" / bad).rglob("scores.nc"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VerificationError, match=f"scores of MLflow run {bad[:8]} cannot be read"):
        compare_runs(good, bad)


@pytest.mark.parametrize("runs", [["a", "b"], "a..b", "a b", " a .. b ", "a,b"])
def test_two_runs_are_parsed(runs):
    assert parse_runs(runs) == ("a", "b")


@pytest.mark.parametrize("runs", [None, [], "a", "a..b..c"])
def test_other_numbers_of_runs_are_refused(runs):
    with pytest.raises(ParameterError, match="not two"):
        parse_runs(runs)


def test_the_table_has_a_row_for_each_cell():
    from weathermill.verification.comparison_page import comparison_frame
    from weathermill.verification.significance import compare

    comparison = compare(make_scores(0.4), make_scores(0.5), n_resamples=100)
    frame = comparison_frame(comparison)
    assert len(frame) == comparison["rmse_change"].size
    row = frame[(frame.channel == "2m_temperature") & (frame.region == "tropics") & (frame.lead_time_h == 24)]
    expected = comparison["rmse_change"].sel(channel="2m_temperature", region="tropics", lead_time=24)
    assert row["rmse_change"].item() == pytest.approx(float(expected))
    assert isinstance(comparison, xr.Dataset)
