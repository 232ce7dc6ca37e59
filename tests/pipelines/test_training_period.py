"""The mean that fills gaps knows the training period alone, whether splits are dates or fractions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from weathermill.fields.inspection import InspectionReport
from weathermill.fields.opening import open_sources
from weathermill.fields.origins import trace_of
from weathermill.parameters import IngestParameters, RegridParameters, SplitParameters, TrainParameters
from weathermill.pipelines.forecast import nodes as forecast_nodes
from weathermill.pipelines.ingest import nodes
from weathermill.pipelines.splitting import training_bounds, training_period_of
from weathermill.pipelines.train import nodes as train_nodes

ASKED = IngestParameters(
    variables=[], surface_variables=["2m_temperature"], fill={"2m_temperature": "climatology"}
)
DATES = {
    "train": {"start": "2020-01-01", "stop": "2020-01-03"},
    "validation": {"start": "2020-01-03", "stop": "2020-01-04"},
    "test": {"start": "2020-01-04"},
}


def write(path, late=0.0):
    """Sixteen six-hourly steps that warm by 1 K each, with a gap at one point of the last; ``late`` is added to the last four."""
    values = np.broadcast_to(280.0 + np.arange(16.0)[:, None, None], (16, 9, 16)).astype(np.float32).copy()
    values[12:] += late
    values[-1, 4, 5] = np.nan
    xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(16) * np.timedelta64(6, "h"),
            "latitude": ("latitude", np.linspace(90, -90, 9), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
        },
    ).to_netcdf(path)
    return open_sources([path])


@pytest.mark.parametrize("splits", [{"train": 0.5, "validation": 0.25, "test": 0.25}, DATES])
def test_gaps_are_filled_by_the_mean_of_the_training_period_in_both_forms_of_splits(tmp_path, splits):
    splits = SplitParameters(**splits)
    fields, warmer = (
        nodes.ingest_fields(write(tmp_path / f"{late}.nc", late), InspectionReport(), ASKED, splits)
        for late in (0.0, 30.0)
    )
    for each in (fields, warmer):
        # Eight training steps of 280 to 287 K.
        assert float(each["2m_temperature"][-1, 4, 5]) == pytest.approx(283.5)
        assert trace_of(each) is not None


def test_the_bounds_of_fractions_are_those_of_the_split_in_any_calendar():
    times = xr.date_range("2020-02-28", periods=10, freq="D", calendar="360_day", use_cftime=True)
    fields = xr.Dataset(coords={"time": times})
    start, stop = training_bounds(fields, SplitParameters(train=0.4, validation=0.3, test=0.3))
    assert (start.isoformat(), stop.isoformat()) == ("2020-02-28T00:00:00", "2020-03-02T00:00:00")


def test_a_network_says_over_what_period_it_was_trained_and_forecasts_go_by_it(store, tmp_path, monkeypatch):
    # 64 six-hourly states from 20 January.
    assert training_period_of(store) == ["2001-01-20T00:00:00", "2001-02-05T00:00:00"]

    model = SimpleNamespace(trained_with={"training_period": training_period_of(store)})
    taken = {}
    monkeypatch.setattr(forecast_nodes, "settle_reduced_grids", lambda raw, policy: raw)
    monkeypatch.setattr(forecast_nodes, "StateReader", lambda *_, **options: taken.update(options))
    raw = write(tmp_path / "a.nc")
    regrid = RegridParameters()
    forecast_nodes._reader(raw, model, regrid, ASKED, SplitParameters())
    assert taken["options"].training == ("2001-01-20T00:00:00", "2001-02-05T00:00:00")
    model.trained_with = {}
    forecast_nodes._reader(raw, model, regrid, ASKED, SplitParameters(**DATES))
    assert taken["options"].training == ("2020-01-01", "2020-01-03")
    forecast_nodes._reader(raw, model, regrid, ASKED, SplitParameters())
    assert taken["options"].training is None


def test_training_puts_the_period_into_the_model(store, monkeypatch):

    result = SimpleNamespace(history=[], forecaster=SimpleNamespace(trained_with={"epochs": 1}))
    monkeypatch.setattr(train_nodes, "train", lambda *_, **__: result)
    monkeypatch.setattr(train_nodes, "model_config", lambda model: None)
    monkeypatch.setattr(train_nodes, "train_config", lambda parameters, seed: None)
    model, _ = train_nodes.train_network(store, None, None, TrainParameters(device="cpu"), 0)
    assert model.trained_with == {"epochs": 1, "training_period": training_period_of(store)}
