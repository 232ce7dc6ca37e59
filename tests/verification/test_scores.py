"""Scores against closed forms, against independent NumPy, and against the `scores` and `xskillscore` packages."""

from __future__ import annotations

import warnings

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from weathermill.errors import EmptySelectionError, VerificationError
from weathermill.verification.baselines import climatology
from weathermill.verification.regions import Region
from weathermill.verification.scores import ScoreAccumulator, to_frame
from weathermill.verification.significance import confidence_intervals

LEADS = np.array([6.0, 24.0, 48.0, 72.0])
INIT = np.datetime64("2017-01-01T00")


def accumulate(
    grid, forecast, truth, climatology=None, *, leads=LEADS, inits=None, channels=("x",), **kwargs
):
    latitude, longitude, weights = grid
    accumulator = ScoreAccumulator(channels, leads, weights, latitude=latitude, longitude=longitude)
    inits = INIT + 6 * np.arange(len(truth)) * np.timedelta64(1, "h") if inits is None else inits
    accumulator.update(forecast, truth, climatology, inits, **kwargs)
    return accumulator.result()


def test_persistence_of_a_travelling_wave_has_its_closed_form(grid, wave):
    amplitude, period = 3.0, 96.0
    hours = 6.0 * np.arange(16)
    truth = np.stack([wave(hour + LEADS, amplitude=amplitude, period=period) for hour in hours])
    initial = wave(hours, amplitude=amplitude, period=period)
    scores = accumulate(grid, truth, truth, np.zeros_like(truth), persistence=initial)
    persistence = scores.sel(source="persistence", channel="x")
    angle = 2 * np.pi * LEADS / period
    for region in scores["region"].to_numpy():
        here = persistence.sel(region=region)
        # RMSE of A sin(a) - A sin(a - wt) over a circle: 2 A |sin(wt/2)| / sqrt(2).
        np.testing.assert_allclose(
            here["rmse"], np.sqrt(2) * amplitude * np.abs(np.sin(angle / 2)), rtol=1e-6
        )
        np.testing.assert_allclose(here["acc"], np.cos(angle), atol=1e-6)
        np.testing.assert_allclose(here["acc_uncentred"], np.cos(angle), atol=1e-6)
        np.testing.assert_allclose(here["activity"], 1.0, rtol=1e-6)
        np.testing.assert_allclose(here["bias"], 0.0, atol=1e-6)
    climatology = scores.sel(source="climatology", channel="x", region="global")
    np.testing.assert_allclose(climatology["rmse"], amplitude / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(climatology["activity"], 0.0, atol=1e-12)
    assert np.isnan(climatology["acc"]).all()
    perfect = scores.sel(source="forecast", channel="x", region="global")
    np.testing.assert_array_equal(perfect["rmse"], 0.0)
    np.testing.assert_allclose(perfect["acc"], 1.0, rtol=1e-12)


def test_the_two_rmse_conventions_differ_as_their_formulas_do(grid):
    # Errors of one size everywhere: 1 from the first initial time, 3 from the second.
    truth = np.zeros((2, 4, 1, 19, 24), np.float32)
    forecast = truth + np.array([1.0, 3.0], np.float32)[:, None, None, None, None]
    scores = accumulate(grid, forecast, truth).sel(source="forecast", channel="x", region="global")
    np.testing.assert_allclose(scores["rmse"], np.sqrt(5.0))
    np.testing.assert_allclose(scores["rmse_mean_of_roots"], 2.0)
    np.testing.assert_allclose(scores["mae"], 2.0)
    np.testing.assert_allclose(scores["bias"], 2.0)


def test_scores_equal_plain_numpy_with_missing_truth(grid, scored):
    latitude, _, weights = grid
    rng = np.random.default_rng(3)
    shape = (5, 4, 2, 19, 24)
    truth, forecast, climatology = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    truth[rng.random(shape) < 0.2] = np.nan
    scores = accumulate(grid, forecast, truth, climatology, channels=("a", "b")).sel(source="forecast")
    masks = {
        "global": np.ones(19, bool),
        "tropics": np.abs(latitude) <= 20,
        "extratropics_north": latitude >= 20,
        "extratropics_south": latitude <= -20,
    }
    f, o, c = (array.astype(np.float64) for array in (forecast, truth, climatology))
    for region, rows in masks.items():
        w = np.where(np.isfinite(o), (weights * rows)[:, None], 0.0)

        def mean(field, w=w):
            return np.where(w > 0, w * np.nan_to_num(field), 0).sum((-2, -1)) / w.sum((-2, -1))

        mse = mean((f - o) ** 2)
        fa, oa = f - c, o - c
        fd = fa - mean(fa)[..., None, None]
        od = oa - mean(oa)[..., None, None]
        acc = mean(fd * od) / np.sqrt(mean(fd**2) * mean(od**2))
        expected = {
            "rmse": np.sqrt(mse.mean(0)),
            "rmse_mean_of_roots": np.sqrt(mse).mean(0),
            "mae": mean(np.abs(f - o)).mean(0),
            "bias": mean(f - o).mean(0),
            "acc": acc.mean(0),
            "acc_uncentred": (mean(fa * oa) / np.sqrt(mean(fa**2) * mean(oa**2))).mean(0),
            "activity": np.sqrt(mean(fd**2).mean(0) / mean(od**2).mean(0)),
            "valid_fraction": (w.sum((-2, -1)) / ((weights * rows).sum() * 24)).mean(0),
        }
        for name, value in expected.items():
            result = scores[name].sel(region=region).transpose("lead_time", "channel")
            np.testing.assert_allclose(result, value, rtol=1e-12, atol=1e-13, err_msg=f"{name} {region}")
        by_init = scores["mse_by_init"].sel(region=region).transpose("init_time", "lead_time", "channel")
        np.testing.assert_allclose(by_init, mse, rtol=1e-6)


def test_agrees_with_the_scores_and_xskillscore_packages(grid, scored):
    reference = pytest.importorskip("scores.continuous", reason="optional: pip install scores")
    skill = pytest.importorskip("xskillscore", reason="optional: pip install xskillscore")
    _, _, weights = grid
    result, forecast, truth = scored()
    dims = ("init_time", "lead_time", "channel", "latitude", "longitude")
    f, o = (xr.DataArray(array.astype(np.float64), dims=dims) for array in (forecast, truth))
    area = xr.DataArray(weights, dims="latitude")
    keep = ("lead_time", "channel")
    ours = result.sel(source="forecast", region="global")
    theirs = np.sqrt(reference.mse(f, o, preserve_dims=keep, weights=area))
    np.testing.assert_allclose(ours["rmse"].transpose(*keep), theirs.transpose(*keep), rtol=1e-10)
    theirs = reference.additive_bias(f, o, preserve_dims=keep, weights=area)
    np.testing.assert_allclose(ours["bias"].transpose(*keep), theirs.transpose(*keep), atol=1e-12)
    both = area.broadcast_like(f.isel(init_time=0, lead_time=0, channel=0))
    theirs = skill.pearson_r(f, o, dim=["latitude", "longitude"], weights=both).mean("init_time")
    np.testing.assert_allclose(ours["acc"].transpose(*keep), theirs.transpose(*keep), rtol=1e-10)
    theirs = skill.rmse(f, o, dim=["latitude", "longitude"], weights=both).mean("init_time")
    np.testing.assert_allclose(
        ours["rmse_mean_of_roots"].transpose(*keep), theirs.transpose(*keep), rtol=1e-10
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    offset=st.floats(-50, 50),
    scale=st.floats(0.01, 100),
    shift=st.integers(0, 23),
)
def test_laws_of_the_scores(seed, offset, scale, shift):
    latitude = 90 - 180 / 19 * (np.arange(19) + 0.5)
    area = (latitude, 15.0 * np.arange(24), np.cos(np.deg2rad(latitude)))
    rng = np.random.default_rng(seed)
    forecast, truth, climatology = rng.normal(size=(3, 1, 1, 1, 19, 24))
    kwargs = {"leads": [6.0]}
    base = accumulate(area, forecast, truth, climatology, **kwargs)
    moved = accumulate(
        area,
        *(np.roll(scale * field + offset, shift, axis=-1) for field in (forecast, truth, climatology)),
        **kwargs,
    )
    for name, factor in {"rmse": scale, "mae": scale, "bias": scale, "acc": 1, "activity": 1}.items():
        np.testing.assert_allclose(
            moved[name].sel(source="forecast"),
            factor * base[name].sel(source="forecast"),
            rtol=1e-7,
            atol=1e-9 * max(1.0, abs(offset)),
        )
    # The decomposition of Murphy and Epstein (1989): MSE' = 1 + a^2 - 2 a r in units of the observed variance, after
    # taking the squared bias off.
    here = base.sel(source="forecast", region="global").squeeze()
    area_mean = np.average((truth - climatology).squeeze().mean(-1), weights=area[2])
    variance = np.average(((truth - climatology).squeeze() ** 2).mean(-1), weights=area[2]) - area_mean**2
    rest = float(here["rmse"] ** 2 - here["bias"] ** 2)
    a, r = float(here["activity"]), float(here["acc"])
    np.testing.assert_allclose(rest, variance * (1 + a * a - 2 * a * r), rtol=1e-9)


def test_float32_fields_on_a_large_mean_lose_nothing_in_the_sums(grid):
    # Geopotential at 50 hPa is near 2e5 m2 s-2; 1/64 is exact there in float32.
    rng = np.random.default_rng(0)
    truth = (np.float32(2e5) + rng.integers(-64, 64, size=(1, 4, 1, 19, 24)) / np.float32(64)).astype(
        np.float32
    )
    forecast = truth + np.float32(1 / 64)
    scores = accumulate(grid, forecast, truth, np.full_like(truth, 2e5)).sel(
        source="forecast", region="global"
    )
    np.testing.assert_allclose(scores["rmse"], 1 / 64, rtol=1e-12)
    np.testing.assert_allclose(scores["bias"], 1 / 64, rtol=1e-9)
    np.testing.assert_allclose(scores["acc"], 1.0, rtol=1e-9)


def test_a_forecast_does_not_gain_by_failing(grid):
    truth = np.zeros((2, 4, 1, 19, 24), np.float32)
    forecast = truth + 1
    forecast[1, 2:, :, 3, 3] = np.nan
    scores = accumulate(grid, forecast, truth, persistence=truth[:, 0]).sel(channel="x", region="global")
    rmse = scores["rmse"].sel(source="forecast").to_numpy()
    np.testing.assert_allclose(rmse[:2], 1.0)
    assert np.isnan(rmse[2:]).all()
    # A region that the missing cell does not touch keeps its score.
    tropics = accumulate(grid, forecast, truth).sel(source="forecast", region="tropics", channel="x")
    np.testing.assert_allclose(tropics["rmse"], 1.0)


def test_all_sources_are_scored_on_the_same_cells(grid):
    truth = np.ones((1, 4, 1, 19, 24), np.float32)
    initial = np.zeros((1, 1, 19, 24), np.float32)
    initial[..., :6, :] = np.nan
    forecast = truth.copy()
    forecast[..., :6, :] = 100.0
    scores = accumulate(grid, forecast, truth, persistence=initial).sel(channel="x")
    np.testing.assert_allclose(scores["rmse"].sel(source="forecast", region="global"), 0.0)
    np.testing.assert_allclose(scores["rmse"].sel(source="persistence", region="global"), 1.0)
    assert float(scores["valid_fraction"].sel(source="forecast", region="global")[0]) < 1
    # The northern extratropics have cells left between 20 and 33 degrees only.
    np.testing.assert_allclose(scores["rmse"].sel(source="forecast", region="extratropics_north"), 0.0)


def test_pieces_by_lead_time_and_merging_make_the_same_scores(grid):
    latitude, longitude, weights = grid
    rng = np.random.default_rng(1)
    truth, forecast, climatology = rng.normal(size=(3, 4, 4, 2, 19, 24)).astype(np.float32)
    initial = rng.normal(size=(4, 2, 19, 24)).astype(np.float32)
    inits = INIT + 6 * np.arange(4) * np.timedelta64(1, "h")

    def new():
        return ScoreAccumulator(("a", "b"), LEADS, weights, latitude=latitude, longitude=longitude)

    whole = new()
    whole.update(forecast, truth, climatology, inits, persistence=initial)
    first, second = new(), new()
    for accumulator, rows in ((first, slice(2, 4)), (second, slice(0, 2))):
        for lead in (3, 0, 1, 2):
            piece = slice(lead, lead + 1)
            accumulator.update(
                forecast[rows, piece],
                truth[rows, piece],
                climatology[rows, piece],
                inits[rows],
                persistence=initial[rows],
                lead_times=LEADS[piece],
            )
    xr.testing.assert_identical(first.merge(second).result(), whole.result())
    with pytest.raises(VerificationError, match="both"):
        first.merge(second)
    with pytest.raises(VerificationError, match="scored before"):
        whole.update(forecast[:1], truth[:1], climatology[:1], inits[:1], persistence=initial[:1])


def test_several_forecasts_side_by_side_and_two_dimensional_weights(grid):
    latitude, longitude, weights = grid
    truth = np.zeros((1, 4, 1, 19, 24), np.float32)
    accumulator = ScoreAccumulator(
        ["x"], LEADS, np.repeat(weights[:, None], 24, axis=1), latitude=latitude, longitude=longitude
    )
    accumulator.update({"forecast": truth + 1, "regression": truth + 2}, truth, None, INIT)
    result = accumulator.result(by_init=False)
    assert result["source"].to_numpy().tolist() == ["forecast", "regression"]
    np.testing.assert_allclose(result["rmse"].sel(source="regression"), 2.0)
    assert "mse_by_init" not in result
    assert np.isnan(result["acc"]).all()


def test_boxes_cross_the_meridian_and_the_date_line(grid):
    latitude, longitude, weights = grid
    truth = np.zeros((1, 1, 1, 19, 24), np.float32)
    forecast = np.broadcast_to(longitude, truth.shape).astype(np.float32)
    regions = [
        Region("europe", 35, 75, -15, 45),
        Region("pacific", -90, 90, 150, -150),
        Region("all round", -90, 90, -180, 180),
    ]
    accumulator = ScoreAccumulator(
        ["x"], [6], weights, latitude=latitude, longitude=longitude, regions=regions
    )
    accumulator.update(forecast, truth, None, INIT)
    bias = accumulator.result()["bias"].squeeze()
    np.testing.assert_allclose(bias.sel(region="europe"), np.mean([345, 0, 15, 30, 45]), rtol=1e-6)
    np.testing.assert_allclose(bias.sel(region="pacific"), np.mean([150, 165, 180, 195, 210]), rtol=1e-6)
    np.testing.assert_allclose(bias.sel(region="all round"), longitude.mean(), rtol=1e-6)
    accumulator = ScoreAccumulator(
        ["x"], [6], weights, latitude=latitude, longitude=longitude, regions=[Region("gap", 0.1, 0.2)]
    )
    with pytest.raises(EmptySelectionError, match="gap"):
        accumulator.update(forecast, truth, None, INIT)


def test_other_calendars_and_the_way_to_disk(grid, tmp_path):
    truth = np.zeros((2, 4, 1, 19, 24), np.float32)
    inits = [cftime.DatetimeNoLeap(2000, 2, 28, 12), cftime.DatetimeNoLeap(2000, 3, 1, 0)]
    scores = accumulate(grid, truth + 1, truth, np.zeros_like(truth), inits=inits)
    scores.to_netcdf(tmp_path / "scores.nc")
    with xr.open_dataset(tmp_path / "scores.nc") as back:
        assert back["lead_time"].dtype.kind == "f"
        assert back["init_time"].to_numpy()[0].calendar == "noleap"
        np.testing.assert_allclose(back["rmse"], scores["rmse"])
        frame = to_frame(back)
    assert list(frame.columns[:5]) == ["source", "channel", "units", "region", "lead_time_h"]
    assert len(frame) == 2 * 1 * 4 * 4
    row = frame[(frame.source == "forecast") & (frame.region == "global") & (frame.lead_time_h == 24)]
    assert row.rmse.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((1, 3, 1, 19, 24), np.float32)}, "truth has shape"),
        ({"persistence": np.zeros((2, 1, 19, 24), np.float32)}, "persistence has shape"),
        ({"lead_times": [6, 24, 48, 96]}, "96 h is not among"),
        ({"climatology": np.zeros((1, 4, 2, 19, 24), np.float32)}, "climatology has shape"),
    ],
)
def test_what_does_not_fit_is_refused(grid, change, message):
    latitude, longitude, weights = grid
    accumulator = ScoreAccumulator(["x"], LEADS, weights, latitude=latitude, longitude=longitude)
    fields = np.zeros((1, 4, 1, 19, 24), np.float32)
    kwargs = {"truth": fields, "init_times": INIT, **change}
    with pytest.raises(VerificationError, match=message):
        accumulator.update(fields, **kwargs)
    with pytest.raises(VerificationError, match="no forecast"):
        accumulator.result()


def test_a_climatology_object_does_what_its_fields_do_and_tells_how_it_was_made(grid):
    latitude, longitude, weights = grid
    rng = np.random.default_rng(7)
    states = rng.normal(size=(200, 1, 19, 24)).astype(np.float32)
    times = INIT + 6 * np.arange(200) * np.timedelta64(1, "h")
    made = climatology(states, times, [(0, 120)])
    starts = np.arange(130, 160)
    truth = np.stack([states[starts + int(lead / 6)] for lead in LEADS], axis=1)
    forecast = truth + rng.normal(size=truth.shape).astype(np.float32)
    fields = np.stack([made.at(times[starts + int(lead / 6)]) for lead in LEADS], axis=1)
    by_object = accumulate(grid, forecast, truth, made, inits=times[starts])
    by_fields = accumulate(grid, forecast, truth, fields, inits=times[starts])
    assert by_object.attrs["climatology"] == made.attrs["climatology"]
    xr.testing.assert_equal(by_object, by_fields)
    alone = ScoreAccumulator(["x"], LEADS, weights, latitude=latitude, longitude=longitude)
    alone.update({}, truth, made, times[starts])
    xr.testing.assert_equal(
        alone.result(by_init=False)["rmse"].sel(source="climatology"),
        by_fields["rmse"].sel(source="climatology"),
    )


def test_scores_of_forecasts_that_grow_without_bound_stay_finite(grid):
    shape = (4, len(LEADS), 1, 19, 24)
    truth = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    forecast = truth + np.array([1.0, 1e10, 1e25, 1e37], np.float32)[:, None, None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = accumulate(grid, forecast, truth, np.zeros_like(truth), persistence=truth[:, 0])
        bounds = confidence_intervals(scores, n_resamples=50)
    at = {"source": "forecast", "region": "global", "channel": "x"}
    expected = np.array([1.0, 1e10, 1e25, 1e37])
    np.testing.assert_allclose(scores["rmse"].sel(at), expected, rtol=1e-5)
    np.testing.assert_allclose(scores["mse_by_init"].sel(at).isel(init_time=0), expected**2, rtol=1e-5)
    np.testing.assert_allclose(bounds["rmse_upper"].sel(at), expected, rtol=1e-5)
    # Where nothing overflows, the file stays as small as it was.
    assert accumulate(grid, truth, truth)["mse_by_init"].dtype == np.float32


def test_an_interval_does_not_leave_out_the_forecasts_that_failed(grid):
    truth = np.random.default_rng(0).normal(size=(4, len(LEADS), 1, 19, 24)).astype(np.float32)
    forecast = truth + 1.0
    forecast[2, 3, 0, 5, 5] = np.nan
    at = {"source": "forecast", "region": "global", "channel": "x"}
    bounds = confidence_intervals(accumulate(grid, forecast, truth), n_resamples=50)
    assert np.isfinite(bounds["rmse_upper"].sel(at)).values.tolist() == [True, True, True, False]
