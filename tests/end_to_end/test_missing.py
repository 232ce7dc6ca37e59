"""A sea surface temperature that is missing over land, and now and then at sea, goes all the way."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.forecasting import forecast, load_model
from weathermill.models.forecaster import read_metadata
from weathermill.tensors.store import TensorStore

SST = "sea_surface_temperature"


def add_sst(sample: xr.Dataset) -> xr.Dataset:
    """A temperature of the sea with two continents, and swaths that a satellite did not see."""
    sst = sample["t2m"].clip(min=271.35) + 2.0
    land = (abs(sample["latitude"] - 20) < 25) & (sample["longitude"] > 60) & (sample["longitude"] < 150)
    step = xr.DataArray(np.arange(sample.sizes["valid_time"]), dims="valid_time")
    unseen = (abs(sample["latitude"] + 40) < 12) & (abs(sample["longitude"] - 12 * (step % 20)) < 20)
    sst = sst.where(~land & ~unseen).transpose(*sample["t2m"].dims)
    sst.attrs = {"units": "K", "long_name": "Sea surface temperature", "standard_name": SST}
    return sample.assign(sst=sst.astype(np.float32))


@pytest.mark.slow
def test_missing_cells_reach_neither_loss_nor_scores_and_come_out_missing(project, small_settings):
    path = project.file("01_raw", "speedy_t21_sample.nc")
    with xr.open_dataset(path) as sample:
        changed = add_sst(sample.load())
    path.unlink()
    changed.to_netcdf(path)
    small_settings["ingest"] |= {"surface_variables": ["2m_temperature", SST], "allow_missing": [SST]}
    small_settings["train"]["rollout"] = [1, 2]
    project.configure(**small_settings)
    project.run()

    store = TensorStore(next(project.path.rglob("manifest.json")).parent)
    channel = store.channels.index(SST)
    assert store.channels.may_be_missing == [channel]
    share = store.missing_share[0]
    never, at_times = share == 1, (share > 0) & (share < 1)
    assert 0.02 < never.mean() < 0.3 and 0.02 < at_times.mean() < 0.5

    catalog = project.catalog()
    statistics = catalog.load("statistics").sel(channel=SST)
    training = np.concatenate([store.physical(a, b)[:, channel] for a, b in store.splits["train"]])
    areas = np.where(np.isnan(training), 0.0, store.area_weights[:, None])
    mean = np.nansum(training * areas, dtype=np.float64) / areas.sum()
    assert float(statistics["mean"]) == pytest.approx(mean, rel=1e-4)

    history = catalog.load("training_history")
    assert np.isfinite(history[["train_loss", "validation_loss"]]).all().all()
    scores = catalog.load("scores").sel(region="global", channel=SST)
    for source in ("forecast", "persistence", "climatology"):
        here = scores.sel(source=source)
        assert np.isfinite(here["rmse"]).all() and (here["rmse"] < 30).all()
        assert (here["valid_fraction"] < 1 - 0.9 * never.mean()).all()
    whole = catalog.load("scores")["valid_fraction"].sel(channel="geopotential_500")
    np.testing.assert_allclose(whole, 1.0, rtol=1e-12)

    weather = catalog.load("forecast")
    sst = weather[SST].values
    assert np.isnan(sst[:, never]).all() and np.isfinite(sst[:, share == 0]).all()
    assert np.isfinite(weather["2m_temperature"]).all()
    folder = next(project.path.rglob("model.json")).parent
    assert [c["name"] for c in read_metadata(folder)["channels"] if c.get("may_be_missing")] == [SST]
    called = forecast(load_model(folder, device="cpu"), path, lead_time_hours=24)
    np.testing.assert_allclose(called[SST].values, sst, rtol=1e-6)
