"""Forcings of time and place go on beyond the source, and are those that ingest would have made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from weathermill.errors import GridError, ModelError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.flatten import to_channels
from weathermill.fields.grids import area_weights, build_grid, grid_of
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.fields.statistics import compute_statistics, normalise
from weathermill.forecasting import StateReader, forecast, stream_forecasts
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import ChannelTable

VARIABLES = {"variables": ["temperature"], "surface_variables": ["2m_temperature"], "levels": [500.0, 850.0]}
FORCINGS = ["toa_incident_solar_radiation", "cosine_of_local_solar_time", "sine_of_year_progress"]
TRAINED = 20  # states that the source of the forecast holds


class Prepared:
    """A long source as the stages before training make it, and a network of its statistics."""

    def __init__(self, source: xr.Dataset, grid: xr.Dataset | None = None) -> None:
        surface = [*VARIABLES["surface_variables"], *FORCINGS]
        fields = canonicalise([source], **(VARIABLES | {"surface_variables": surface}))
        if grid is not None:
            fields = apply_weights(fields, make_weights(grid_of(fields), grid, "conservative"), grid)
        array, channels = to_channels(fields, prognostic=["temperature", "2m_temperature"], forcing=FORCINGS)
        weights = area_weights(fields["latitude"].values)
        statistics = compute_statistics(array, weights, [(0, TRAINED)], 21600)
        self.physical = array.sel(channel=FORCINGS).compute()
        self.normalised = normalise(array, statistics).sel(channel=FORCINGS).compute()
        torch.manual_seed(0)
        self.network = Forecaster(
            ModelConfig(base_channels=4, depth=1, norm="none"),
            ChannelTable.from_dicts(channels),
            fields["latitude"].values,
            fields["longitude"].values,
            *(statistics[name].values for name in ("mean", "std", "tendency_std")),
        ).eval()

    def fed(self, run) -> np.ndarray:
        """The forcing channels of every state that the network is given while ``run`` runs."""
        seen = []
        hook = self.network.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        run()
        hook.remove()
        n = self.network.n_prognostic
        return torch.stack([state[:, n : n + len(FORCINGS)] for state in seen], dim=1).numpy()


@pytest.fixture(params=["own grid", "regridded", "noleap"])
def prepared(request, sources):
    whole = sources(n_times=TRAINED + 40, calendar="noleap" if request.param == "noleap" else "standard")
    grid = build_grid(np.linspace(90, -90, 7), np.arange(12) * 30.0) if request.param == "regridded" else None
    return Prepared(whole, grid), whole.isel(time=slice(0, TRAINED))


def test_ten_days_from_the_last_state_are_forced_as_ingest_would_have_it(prepared):
    prepared, source = prepared
    fed = prepared.fed(lambda: forecast(prepared.network, source, lead_time_hours=240))
    expected = prepared.normalised.values[TRAINED - 1 : TRAINED + 39]
    assert fed.shape == (1, *expected.shape) and len(expected) == 40
    np.testing.assert_allclose(fed[0], expected, atol=1e-6, rtol=0)
    assert np.abs(np.diff(fed[0, :, 0], axis=0)).max() > 0.5, "the sun moves"


def test_forecasts_from_many_times_are_forced_alike(prepared):
    prepared, source = prepared
    stream = stream_forecasts(
        prepared.network, source, lead_time_hours=240, batch_size=2, start="2001-01-05T12"
    )
    fed = prepared.fed(lambda: list(stream))
    assert stream.positions == [18, 19]
    for row, start in enumerate((18, 19)):
        np.testing.assert_allclose(
            fed[row], prepared.normalised.values[start : start + 40], atol=1e-6, rtol=0
        )


def with_insolation(prepared, source, *, until, factor=1.0):
    values = factor * prepared.physical.values[: source.sizes["time"], 0, ::-1]
    held = xr.DataArray(values, dims=("time", "latitude", "longitude"), attrs={"units": "J m-2"})
    ahead = xr.Dataset({"tisr": held.assign_coords(source.drop_vars("level").coords)}).isel(
        time=slice(0, until)
    )
    return [source, ahead]


def test_what_the_source_holds_is_read_and_goes_on_by_its_formula(sources, caplog):
    whole = sources(n_times=TRAINED + 40)
    prepared = Prepared(whole)
    pair = with_insolation(prepared, whole, until=12, factor=1.001)
    reader = StateReader([pair[0].isel(time=slice(0, 10)), pair[1]], prepared.network)
    assert reader.last(40) == 9
    with caplog.at_level("INFO"):
        given = reader.forcings([9], 6)[0, :, 0]
    expected = prepared.physical.values[10:15, 0]
    np.testing.assert_allclose(given[:2], 1.001 * expected[:2], rtol=1e-6)
    np.testing.assert_allclose(given[2:], expected[2:], rtol=1e-6)
    assert "goes on by its formula" in caplog.text
    assert reader.read([3]).sizes["channel"] == 6 and reader.notes[0].startswith(
        "cosine_of_local_solar_time, "
    )


def test_a_formula_does_not_go_on_from_fields_of_another_kind(sources):
    whole = sources(n_times=TRAINED + 40)
    prepared = Prepared(whole)
    pair = with_insolation(prepared, whole, until=12, factor=6.0)
    reader = StateReader([pair[0].isel(time=slice(0, 10)), pair[1]], prepared.network, names=["a.nc", "b.nc"])
    assert reader.forcings([9], 3).shape == (1, 2, 3, 8, 16)
    with pytest.raises(
        ModelError,
        match=r"toa_incident_solar_radiation cannot go on .* at 2001-01-03T18:00.*\n  -> Choose an earlier",
    ):
        reader.forcings([9], 6)


def test_a_source_of_forcings_to_come_serves_where_there_is_no_formula(networks, source):
    hours = np.arange(6, dtype=np.float32)[:, None, None] + np.zeros((8, 16), np.float32)
    ahead = xr.Dataset(
        {"insolation": (("time", "latitude", "longitude"), hours, {"units": "J m-2"})},
        coords=source.drop_vars("level").coords,
    )
    reader = StateReader([source.isel(time=slice(0, 2)), ahead], networks(forcing=True))
    assert len(reader.times) == 2
    np.testing.assert_array_equal(reader.forcings([1], 5)[0, :, 0, 0, 0], [2, 3, 4, 5])
    with pytest.raises(ModelError, match=r"\(insolation\) .* it ends at 2001-01-02T06:00"):
        reader.forcings([1], 6)


def test_states_that_do_not_cover_the_grid_or_shall_not_be_regridded_are_told(networks, source):
    network = networks(7, 12, poles=True)
    with pytest.raises(
        GridError, match=r"grid of 8 x 16 \(latitudes -78.75 to 78.75, .* network's is 7 x 12"
    ):
        StateReader([source], network, method=None)
    with pytest.raises(GridError, match=r"the states cover .* % of the network's grid"):
        StateReader([source.isel(latitude=slice(0, 4))], network, method="bilinear")
