"""What evaluation adds up to, on waves whose scores are known: a network that forecasts persistence scores as it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from weathermill.errors import EmptySelectionError, SplitError
from weathermill.fields.derived import fields_of_time_and_place
from weathermill.fields.grids import build_grid
from weathermill.fields.regridding import make_weights
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.parameters import EvaluateParameters, TrainParameters
from weathermill.pipelines.evaluate import baselines, captions, card, nodes
from weathermill.verification.model_card import CardFigure, render_model_card
from weathermill.verification.skill_tables import stability_limit
from weathermill.verification.times import add_hours

AMPLITUDE, PERIOD = np.array([900.0, 6.0]), 96.0


def parameters(**changes):
    given = {"lead_time_hours": 24, "bootstrap_samples": 20, "stability_days": 2}
    return EvaluateParameters(**{**given, **changes})


@pytest.fixture
def bounds():
    names = ["geopotential_500", "temperature_850"]
    values = {"minimum": [5.41e4, 274.0], "maximum": [5.59e4, 286.0], "std": [636.0, 4.24]}
    return xr.Dataset({k: ("channel", np.array(v)) for k, v in values.items()}, coords={"channel": names})


def test_forecast_persistence_and_regression_have_their_closed_forms(store, network):
    scores, _, _ = nodes.evaluate_forecasts(store, network, parameters())
    rmse = scores["rmse"].sel(region="global")
    leads = scores["lead_time"].values
    assert set(scores["source"].values) == {"forecast", "persistence", "climatology", "regression"}
    persistence = np.sqrt(2) * AMPLITUDE[:, None] * np.abs(np.sin(np.pi * leads / PERIOD))
    damped = AMPLITUDE[:, None] / np.sqrt(2) * np.abs(np.sin(2 * np.pi * leads / PERIOD))
    for name in ("forecast", "persistence"):
        np.testing.assert_allclose(rmse.sel(source=name), persistence, rtol=1e-4)
    np.testing.assert_allclose(rmse.sel(source="regression"), damped, rtol=1e-3)
    np.testing.assert_allclose(
        rmse.sel(source="climatology"), np.broadcast_to(AMPLITUDE[:, None] / np.sqrt(2), (2, 4)), rtol=1e-3
    )
    assert scores.attrs["grid"] == "9 x 16" and len(scores.attrs["grid_digest"]) == 16


def test_unstable_forecasts_are_told_once_and_noted_in_scores_and_example(store, network, caplog):
    def growing(state, steps, forcings=None):
        for step in range(1, steps + 1):
            out = np.array(state[:, :2])
            out[:, 1] *= 1.0 if step < 3 else np.nan if step == 4 else 1e30
            yield out

    network.rollout_physical = growing
    scores, _, example = nodes.evaluate_forecasts(store, network, parameters())
    text = "at a lead time of 18 h, temperature at 850 hPa has values from"
    assert text in scores.attrs["forecast_warning"] and text in example.attrs["forecast_warning"]
    told = [r.getMessage() for r in caplog.records if "unstable" in r.getMessage()]
    assert told == [scores.attrs["forecast_warning"]]
    rmse = scores["rmse"].sel(source="forecast", region="global", channel="temperature_850")
    assert np.isfinite(rmse).values.tolist() == [True, True, True, False]


def test_regions_are_parameters(store, network):
    boxes = [{"name": "date_line", "south": -30, "north": 30, "west": 150, "east": 210}]
    scores, _, _ = nodes.evaluate_forecasts(store, network, parameters(regions=boxes, regression="none"))
    assert list(scores["region"].values) == [
        "global",
        "tropics",
        "extratropics_north",
        "extratropics_south",
        "date_line",
    ]
    assert "regression" not in scores["source"]
    hours = scores["lead_time"].values
    # The box holds four longitudes of sixteen, where the wave passes as anywhere else: over whole periods of initial
    # times the mean square is that of the globe.
    here = scores["mse_by_init"].sel(source="forecast", region="date_line").isel(init_time=slice(0, 16))
    everywhere = scores["mse_by_init"].sel(source="forecast", region="global").isel(init_time=slice(0, 16))
    assert len(hours) == 4
    np.testing.assert_allclose(here.mean("init_time"), everywhere.mean("init_time"), rtol=1e-3)
    nowhere = [{"name": "nowhere", "south": 1, "north": 2, "west": 1, "east": 2}]
    with pytest.raises(EmptySelectionError, match="nowhere"):
        nodes.evaluate_forecasts(store, network, parameters(regions=nowhere))


@pytest.mark.parametrize("kind", ["hourly", "mean", "weekly"])
def test_the_kind_of_climatology_is_a_parameter(store, kind):
    assert baselines.make_climatology(store, kind).kind == kind


def test_regression_is_left_out_where_it_would_read_much(store, monkeypatch, caplog):
    reference = baselines.make_climatology(store)
    monkeypatch.setattr(baselines, "CHEAP_BYTES", 1000)
    with caplog.at_level("INFO"):
        assert baselines.make_regression(store, reference, steps=4) is None
    assert "evaluate.regression=damped" in caplog.text
    assert baselines.make_regression(store, reference, steps=4, kind="damped") is not None
    with pytest.raises(SplitError, match="longer than 70 steps"):
        baselines.make_regression(store, reference, steps=70, kind="damped")


def test_regression_takes_a_sample_of_a_long_training_period(store, monkeypatch):
    reference = baselines.make_climatology(store)
    monkeypatch.setattr(baselines, "MOST_STATES", 25)
    fitted = baselines.make_regression(store, reference, steps=2)
    expected = np.cos(2 * np.pi * np.array([6, 12]) / PERIOD)
    np.testing.assert_allclose(fitted.coefficients[:, 0, 0], expected, atol=0.02)


def test_persistence_is_stable_and_narrow_bounds_are_left(store, network, bounds):
    stable = nodes.follow_stability(store, network, bounds, parameters(stability_rollouts=3))
    assert stable.attrs["stable"] == 1
    assert stable.sizes == {"rollout": 3, "channel": 2, "lead_time": 9}
    assert float(stable["init_time"].diff("rollout").min()) > 0
    narrow = bounds.assign(
        minimum=bounds["minimum"] + 800,
        maximum=bounds["maximum"] + 800,
        std=bounds["std"] * 0.1,
    )
    left = nodes.follow_stability(store, network, narrow, parameters())
    assert "as some already of the initial states had" in stability_limit(left)
    assert stability_limit(stable) == ""
    assert left.attrs["stable"] == 0 and float(left["stable_until"].max()) == 0.0
    _, metrics = nodes.tabulate_scores(nodes.evaluate_forecasts(store, network, parameters())[0], left)
    assert metrics["stability/inside_until_hours"] == 0.0 and metrics["stability/followed_hours"] == 48.0


def test_stability_can_be_off_and_needs_the_forcings(
    store, network, bounds, make_store, make_network, tmp_path
):
    off = nodes.follow_stability(store, network, bounds, parameters(stability_days=None))
    assert "stability_days" in off.attrs["left_out"]
    forced = make_store(tmp_path / "forced", forcing=True)
    short = nodes.follow_stability(forced, make_network(forced), bounds, parameters(stability_days=2))
    assert short.attrs["stable"] == 1
    long = nodes.follow_stability(forced, make_network(forced), bounds, parameters(stability_days=60))
    assert "forcings" in long.attrs["left_out"]


def test_long_rollouts_compute_what_follows_from_the_time(make_store, make_network, bounds, tmp_path, caplog):
    store = make_store(tmp_path / "sunlit", forcing="sun")
    network, grid = make_network(store), build_grid(store.latitude, store.longitude)
    weights = make_weights(grid, grid, "nearest_s2d")
    seen = []
    network.network.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 2].numpy()))
    long = nodes.follow_stability(store, network, bounds, parameters(stability_days=30), weights)
    assert long.sizes["lead_time"] == 121 and long.attrs["stable"] == 1 and len(seen) == 120
    times = add_hours(long["init_time"].values, 6 * 119)
    expected = fields_of_time_and_place(["toa_incident_solar_radiation"], times, grid)
    expected = expected["toa_incident_solar_radiation"].values / store.std[2]
    np.testing.assert_allclose(seen[119], expected, atol=1e-6)
    other = make_store(tmp_path / "other", forcing="ones")
    left = nodes.follow_stability(other, make_network(other), bounds, parameters(stability_days=30), weights)
    assert "forcings" in left.attrs["left_out"] and "is not what its formula gives" in caplog.text


def test_seasons_regions_and_stability_are_on_the_card(make_store, make_network, bounds, tmp_path):
    store = make_store(tmp_path / "spring", start="2001-02-06")
    network = make_network(store)
    scores, _, _ = nodes.evaluate_forecasts(store, network, parameters())
    seasons = nodes.split_seasons(scores)
    assert list(seasons["season"].values) == ["DJF", "MAM"]
    stability = nodes.follow_stability(store, network, bounds, parameters())
    card = render_model_card(
        scores,
        title="t",
        simulated=True,
        data={},
        grid={},
        channels=[],
        normalisation="",
        model={},
        training={},
        provenance={},
        versions={},
        seasons=seasons,
        stability=stability,
    )
    for words in (
        "By season",
        "DJF",
        "MAM",
        "Northern extratropics",
        "ran freely for 2 days",
        "stayed inside",
    ):
        assert words in card, words


def test_intervals_follow_the_decorrelation_time(store, network):
    scores, _, _ = nodes.evaluate_forecasts(store, network, parameters())
    short = nodes.bound_scores(scores, parameters(block_days=0.25), 0)["block"].values
    long = nodes.bound_scores(scores, parameters(block_days=2), 0)["block"].values
    assert (short < long).all()


def test_facts_on_the_card(store, make_network):
    parameters = TrainParameters(epochs=3, rollout=[1, 1, 4], rollout_loss={"noise_std": 0.02}, patience=5)
    history = pd.DataFrame(
        {"epoch": [1, 2], "step": [10, 20], "seconds": [30.0, 60.0], "validation_loss": [0.5, 0.4]}
    )
    told = card.training_facts(history, parameters)
    assert told["steps of a window"] == "1 (2 epochs), then 4" and told["noise_std"] == 0.02
    assert told["patience"] == 5 and told["optimiser_steps"] == 20 and told["duration"] == "1.5 min"
    periods = card.data_facts(store)["periods"]
    assert list(periods) == ["train", "validation", "test"]
    assert periods["train"] == "2001-01-20 00:00 to 2001-02-04 18:00 UTC, 64 states"
    memory = card.memory_facts(make_network(store), parameters)
    assert "batch 4, 4 steps" in memory["predicted for"] and memory["needed on the device"].endswith(" MiB")
    assert card.model_facts(make_network(store))["hard constraints"] == "none"


def test_the_corrections_of_constraints_are_followed_and_told(store, bounds):
    config = ModelConfig(base_channels=4, depth=1, norm="none", conserve_mean=["geopotential_500"])
    network = Forecaster.from_store(store, config).eval()
    followed = nodes.follow_stability(store, network, bounds, parameters())
    assert followed["constraint"].values.tolist() == ["conserve_mean/geopotential_500"]
    assert followed["correction"].sizes["lead_time"] == 9 and float(followed["correction"][0, 1:].min()) > 0
    assert float(followed["typical_change"][0]) == store.tendency_std[0]
    weights = store.area_weights / store.area_weights.sum()
    initial = store.physical(80, 81)[0, 0].mean(axis=1) @ weights
    np.testing.assert_allclose(followed["mean"].sel(channel="geopotential_500")[0], initial, rtol=1e-6)
    assert card.model_facts(network)["hard constraints"] == {"conserve_mean": ("geopotential_500",)}
    scores, spectra, _ = nodes.evaluate_forecasts(store, network, parameters())
    page = render_model_card(
        scores,
        title="t",
        simulated=True,
        data={},
        grid={},
        channels=[],
        normalisation="",
        model={},
        training={},
        provenance={},
        versions={},
        stability=followed,
        spectra=spectra,
        intervals=nodes.bound_scores(scores, parameters(), 0),
        figures=[CardFigure("maps", "one", b"\x89PNG"), CardFigure("training", "two", b"\x89PNG")],
    )
    for words in (
        "What the constraints corrected",
        "conserve mean: Z500",
        "Waves 1-3",
        "<b>Figure 1.</b> one",
        "<b>Figure 2.</b> two",
        "coloured where their 95 % interval",
    ):
        assert words in page, words


def test_the_card_says_what_the_grid_covers_and_how_the_network_ends_there(store, network):
    assert card.grid_facts(store)["extent"] == "the globe"
    facts = card.model_facts(network)
    assert facts["boundary"] == "auto: sphere, periodic in longitude and across both poles in latitude"
    assert not {"edges", "open_edges"} & set(facts)
    scores, _, _ = nodes.evaluate_forecasts(store, network, parameters(regression="none"))
    assert "(%), global, by channel" in captions.scorecard("persistence", scores)
    region = scores.isel(region=[0]).assign_coords(region=["domain"])
    assert "(%), whole domain, by channel" in captions.scorecard("persistence", region)
    assert "by lead time, whole domain, of" in captions.curves("RMSE", region, region)
