"""The three lines, and forecasts from many times streamed to Zarr."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from kedro.io import DatasetError

from weathermill.datasets import ForecastsDataset
from weathermill.datasets.local import plain_error
from weathermill.errors import MissingDataError, ModelError
from weathermill.forecasting import ForecastStream, StateReader, forecast, load_model, stream_forecasts


def test_three_lines(networks, source, tmp_path):
    networks(zero=False).save(tmp_path / "model")
    source.to_netcdf(tmp_path / "state.nc")

    model = load_model(tmp_path / "model", device="cpu")
    weather = forecast(model, tmp_path / "state.nc", initial_time="2001-01-01T12:00", lead_time_hours=16)

    assert list(weather["lead_time"].values) == [6, 12, 18]
    assert weather["init_time"].values == np.datetime64("2001-01-01T12:00")
    assert (
        weather["time"].values
        == np.datetime64("2001-01-01T12:00") + np.array([6, 12, 18]) * np.timedelta64(1, "h")
    ).all()
    assert weather["2m_temperature"].attrs["units"] == "K"
    state = StateReader([source], model).read([2]).values
    expected = np.stack(list(model.rollout_physical(state, 3)), axis=1)[0]
    np.testing.assert_allclose(weather["temperature"].sel(level=850), expected[:, 2], rtol=1e-6)
    assert np.abs(expected[2] - expected[0]).max() > 0.01


def test_an_absent_model_is_told(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize("chunk_bytes", [10, 3000, 10**7])
def test_streamed_forecasts_equal_single_ones(networks, source, tmp_path, chunk_bytes):
    model = networks(zero=False)
    reader = StateReader([source], model)
    stream = ForecastStream(
        model, reader, [0, 2, 3, 5, 1], lead_time_hours=24, batch_size=2, chunk_bytes=chunk_bytes
    )
    ForecastsDataset(filepath=str(tmp_path / "f.zarr")).save(stream)
    stored = ForecastsDataset(filepath=str(tmp_path / "f.zarr")).load()
    assert stored["temperature"].shape == (5, 4, 2, 8, 16)
    assert stored["temperature"].encoding["chunks"][:2] == (stream.init_chunk, stream.lead_chunk)
    assert stored["lead_time"].attrs["units"] == "hours"
    for position, index in enumerate([0, 2, 3, 5, 1]):
        alone = forecast(model, source, initial_time=source["time"].values[index], lead_time_hours=24)
        here = stored.isel(init_time=position)
        assert here["init_time"].values == source["time"].values[index]
        assert (here["time"].values == alone["time"].values).all()
        for name in ("temperature", "geopotential_500", "2m_temperature"):
            np.testing.assert_allclose(here[name], alone[name], rtol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"f.zarr"}


def test_a_stream_that_fails_leaves_nothing(networks, source, tmp_path):
    source["t"][5, 1, 0, 0] = np.nan
    stream = stream_forecasts(networks(), source, lead_time_hours=12, batch_size=2)
    assert isinstance(stream.template(), xr.Dataset)
    with pytest.raises(DatasetError) as caught:
        ForecastsDataset(filepath=str(tmp_path / "f.zarr")).save(stream)
    assert isinstance(plain_error(caught.value), MissingDataError)
    assert not list(tmp_path.iterdir())


def test_other_calendars_survive_the_store(networks, sources, tmp_path):
    source = sources(calendar="noleap")
    stream = stream_forecasts(networks(), source, initial_times=["2001-01-01T06:00"], lead_time_hours=12)
    ForecastsDataset(filepath=str(tmp_path / "f.zarr")).save(stream)
    stored = ForecastsDataset(filepath=str(tmp_path / "f.zarr")).load()
    assert stored["init_time"].values[0].isoformat() == "2001-01-01T06:00:00"
    assert stored["time"].values[0, 1].calendar == "noleap"


def test_forecasts_with_forcings_follow_the_source(networks, source, tmp_path):
    hours = np.arange(6, dtype=np.float32)[:, None, None] + np.zeros((8, 16), np.float32)
    forced = source.assign(insolation=(("time", "latitude", "longitude"), hours, {"units": "J m-2"}))
    model = networks(zero=False, forcing=True)
    weather = forecast(model, forced, lead_time_hours=18)
    assert weather["init_time"].values == source["time"].values[3]
    state = StateReader([forced], model).read([3]).values
    forcings = np.stack([hours[[4, 5]]])[:, :, None]
    expected = np.stack(list(model.rollout_physical(state, 3, forcings)), axis=1)[0]
    np.testing.assert_allclose(weather["temperature"].sel(level=850), expected[:, 2], rtol=1e-6)
    stream = stream_forecasts(model, forced, stop="2001-01-01T18:00", lead_time_hours=18, batch_size=2)
    stream.to_zarr(tmp_path / "f.zarr")
    stored = ForecastsDataset(filepath=str(tmp_path / "f.zarr")).load()
    assert stored.sizes["init_time"] == 3
    assert "crc32c" in (tmp_path / "f.zarr" / "2m_temperature" / "zarr.json").read_text()
    alone = forecast(model, forced, initial_time="2001-01-01T12:00", lead_time_hours=18)
    np.testing.assert_allclose(stored["2m_temperature"][2], alone["2m_temperature"], rtol=1e-5)
