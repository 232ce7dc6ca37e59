"""The forecast pipelines' nodes: one state, many, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import EmptySelectionError, MissingVariableError, ParameterError
from weathermill.fields.opening import OpenedSources
from weathermill.forecasting import forecast
from weathermill.forecasting.requests import answer
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.parameters import ForecastParameters, IngestParameters, RegridParameters, SplitParameters
from weathermill.pipelines.forecast import nodes

TIMES = np.arange("2001-03-01", "2001-03-03", 6, dtype="datetime64[h]").astype("datetime64[ns]")


UNSAID = (IngestParameters(variables=["temperature"]), SplitParameters())


def opened(network) -> OpenedSources:
    """What the catalog's raw fields give: datasets and their names."""
    rng = np.random.default_rng(0)
    shape = (len(TIMES), 2, *network.grid_shape)
    dims = ("time", "level", "latitude", "longitude")
    dataset = xr.Dataset(
        {
            "geopotential": (dims, 5.5e4 + rng.normal(size=shape), {"units": "m2 s-2"}),
            "temperature": (dims, 280 + rng.normal(size=shape), {"units": "K"}),
        },
        coords={
            "time": TIMES,
            "level": ("level", [500.0, 850.0], {"units": "hPa"}),
            "latitude": ("latitude", network.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", network.longitude, {"units": "degrees_east"}),
        },
    )
    return OpenedSources([dataset], ["made by a test"], [])


def test_a_forecast_of_persistence_keeps_its_initial_state(network):
    raw, parameters = opened(network), ForecastParameters(lead_time_hours=12, initial_time="2001-03-01T18:00")
    initial = nodes.read_initial_state(raw, network, RegridParameters(), parameters, *UNSAID)
    assert initial["time"].values == np.datetime64("2001-03-01T18:00")
    forecast = nodes.make_forecast(initial, network, parameters)
    for lead in range(2):
        np.testing.assert_allclose(
            forecast["geopotential"][lead, 0], raw.datasets[0]["geopotential"][3, 0], rtol=1e-6
        )
    last = nodes.read_initial_state(raw, network, RegridParameters(), ForecastParameters(), *UNSAID)
    assert last["time"].values == TIMES[-1]


def test_many_initial_times(network):
    def positions(times):
        parameters = ForecastParameters(initial_times=times, lead_time_hours=6)
        return nodes.make_forecasts(
            opened(network), network, RegridParameters(), parameters, *UNSAID
        ).positions

    assert positions(["2001-03-01T06:00", "2001-03-02"]) == [1, 4]
    assert positions({"start": "2001-03-01T06:00", "every_hours": 24}) == [1, 5]
    assert positions({}) == list(range(8))
    with pytest.raises(EmptySelectionError, match="2001-03-01T00:00 to 2001-03-02T18:00"):
        positions(["2005-01-01"])


def test_nothing_to_forecast_from_is_told(network):
    with pytest.raises(ParameterError, match="initial_times is null"):
        nodes.make_forecasts(opened(network), network, RegridParameters(), ForecastParameters(), *UNSAID)


def test_statics_come_from_the_network_and_forcings_from_the_source(make_store, make_network, tmp_path):
    static = make_network(make_store(tmp_path / "static", static=True))
    initial = nodes.read_initial_state(
        opened(static), static, RegridParameters(), ForecastParameters(), *UNSAID
    )
    assert nodes.make_forecast(initial, static, ForecastParameters(lead_time_hours=6)).sizes["lead_time"] == 1
    forced = make_network(make_store(tmp_path / "forced", forcing=True))
    with pytest.raises(MissingVariableError, match="insolation"):
        nodes.read_initial_state(opened(forced), forced, RegridParameters(), ForecastParameters(), *UNSAID)


def test_the_stage_the_call_and_a_request_give_the_same_bits(make_store, tmp_path):
    store = make_store(tmp_path / "sunlit", forcing="sun")
    network = Forecaster.from_store(store, ModelConfig(base_channels=4, depth=1, norm="none")).eval()
    raw, parameters = opened(network), ForecastParameters(lead_time_hours=48)
    initial = nodes.read_initial_state(raw, network, RegridParameters(), parameters, *UNSAID)
    staged = nodes.make_forecast(initial, network, parameters)
    called = forecast(network, raw.datasets[0], lead_time_hours=48)
    assert staged.sizes["lead_time"] == 8 and staged.equals(called)
    (batch,) = [
        piece
        for _, piece in nodes.make_forecasts(
            raw,
            network,
            RegridParameters(),
            ForecastParameters(lead_time_hours=48, initial_times=[str(TIMES[-1])]),
            *UNSAID,
        )
    ]
    assert batch.isel(init_time=0)["temperature_850"].equals(called["temperature_850"])
    answered = answer(network, raw.datasets[0].isel(time=[-1]), lead_time_hours=48)["forecast"]
    np.testing.assert_array_equal(answered[0, :, 0], called["geopotential"].sel(level=500))
    np.testing.assert_array_equal(answered[0, :, 1], called["temperature_850"])
