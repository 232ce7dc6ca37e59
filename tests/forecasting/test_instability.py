"""Forecasts that leave what is physically possible are told, in the log and in what is written."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.fields.plausibility import Limits
from weathermill.forecasting import ReadOptions, forecast, stream_forecasts
from weathermill.forecasting.calls import forecast_one, make_reader, read_one
from weathermill.forecasting.instability import InstabilityCheck
from weathermill.forecasting.requests import answer


@pytest.fixture
def warm(source):
    return source.assign(t2m=(source["t2m"] + 273.15).assign_attrs(source["t2m"].attrs, units="K"))


@pytest.fixture
def growing(networks):
    """A network whose 2 m temperature is replaced in one cell: by ``values[k]`` in step k + 1."""

    def make(*values, channel=3, cells=1, of=slice(None)):
        model = networks()

        def rollout(state, steps, forcings=None):
            for value in values[:steps]:
                out = np.array(state[:, :4], dtype=np.float32)
                if value is not None:
                    out[of, channel].reshape(len(out[of]), -1)[:, :cells] = value
                yield out

        model.rollout_physical = rollout
        return model

    return make


def warnings_of(caplog):
    return [
        r.getMessage() for r in caplog.records if "unstable" in r.getMessage() and r.levelname == "WARNING"
    ]


def test_an_unstable_forecast_is_told_once_with_variable_and_first_lead_time(growing, warm, caplog):
    weather = forecast(growing(None, 1e37, np.nan), warm, lead_time_hours=18)
    text = weather.attrs["forecast_warning"]
    assert warnings_of(caplog) == [text]
    assert "at a lead time of 12 h, 2m_temperature has values from" in text
    assert "to 1e+37 K (its physical limits are 150 to 350)" in text
    assert "Forecast to 6 h at most, train longer, or train with more steps (train.rollout)" in text
    assert float(weather["2m_temperature"].sel(lead_time=12).max()) == np.float32(1e37)


def test_a_stable_forecast_is_told_of_nothing(growing, warm, caplog):
    # 351 K in one cell of 128 is an error of the network, and does not grow.
    weather = forecast(growing(None, 351.0), warm, lead_time_hours=12)
    assert "forecast_warning" not in weather.attrs
    assert not warnings_of(caplog)


@pytest.mark.parametrize(
    ("value", "cells", "text"),
    [
        (np.nan, 2, "has 2 of 128 values that are not finite"),
        (np.inf, 1, "has 1 of 128 values that are not finite"),
        (451.0, 1, "to 451 K"),
        (449.0, 1, None),
        (361.0, 2, "to 361 K"),
        (361.0, 1, None),
        (359.0, 128, None),
    ],
)
def test_how_far_is_too_far(growing, warm, value, cells, text):
    warning = forecast(growing(value, cells=cells), warm, lead_time_hours=6).attrs.get("forecast_warning")
    assert warning is None if text is None else text in warning


def test_levels_are_named(growing, warm):
    weather = forecast(growing(-np.inf, channel=2), warm, lead_time_hours=6)
    assert "temperature at 850 hPa has 1 of 128" in weather.attrs["forecast_warning"]
    assert "Check the initial state" in weather.attrs["forecast_warning"]


def test_limits_of_the_user_hold_for_what_comes_out(growing, warm):
    options = ReadOptions(limits={"2m_temperature": [150.0, 1000.0]})
    assert "forecast_warning" in forecast(growing(900.0), warm, lead_time_hours=6).attrs
    assert "forecast_warning" not in forecast(growing(900.0), warm, lead_time_hours=6, options=options).attrs
    stream = stream_forecasts(growing(900.0), warm, lead_time_hours=6, options=options)
    assert all("forecast_warning" not in piece.attrs for _, piece in stream)
    # What a stage reads is handed on with its limits.
    model = growing(900.0)
    needed = read_one(make_reader(model, warm, options=options), model, None, 6)
    assert "forecast_warning" not in forecast_one(model, needed, lead_time_hours=6).attrs
    assert (
        "forecast_warning"
        in forecast_one(model, needed.drop_vars(["lower_limit", "upper_limit"]), lead_time_hours=6).attrs
    )


def test_streams_say_how_many_forecasts_and_write_it_to_the_store(growing, warm, caplog, tmp_path):
    stream = stream_forecasts(growing(None, 1e30, of=slice(1, None)), warm, lead_time_hours=12, batch_size=2)
    stream.to_zarr(tmp_path / "f.zarr")
    stored = xr.open_zarr(tmp_path / "f.zarr", consolidated=False, decode_timedelta=False)
    text = stored.attrs["forecast_warning"]
    assert warnings_of(caplog) == [text]
    assert "unstable (3 of 6 forecasts): at a lead time of 12 h, 2m_temperature has values" in text
    assert "of the forecast from 2001-01-01T06:00" in text
    assert stored.attrs["title"] == "Weathermill forecast"
    assert (
        stored["2m_temperature"].isel(lead_time=1).max(["latitude", "longitude"]) > 1e29
    ).values.tolist() == [
        False,
        True,
    ] * 3


def test_what_a_stream_made_is_told_also_where_its_reader_stops(growing, warm, caplog):
    pieces = iter(stream_forecasts(growing(np.nan), warm, lead_time_hours=6, batch_size=2))
    assert "unstable" in next(pieces)[1].attrs["forecast_warning"]
    pieces.close()
    assert len(warnings_of(caplog)) == 1


def test_answers_to_requests_carry_the_warning(growing, warm, caplog):
    out = answer(growing(None, 1e37), warm.isel(time=[-1]), steps=2)
    assert [note for note in out["notes"] if "at a lead time of 12 h, 2m_temperature" in note] == warnings_of(
        caplog
    )
    found = answer(growing(None, 1e37), warm.isel(time=[-1]), steps=2, form="dataset")["attrs"]
    assert found["forecast_warning"] == out["notes"][-1] and found["forecast_warning"] in found["comment"]
    assert "forecast_warning" not in answer(growing(None), warm.isel(time=[-1]), form="dataset")["attrs"]


def test_variables_without_limits_are_judged_by_the_spread_of_training(networks):
    model = networks()
    states = np.broadcast_to(model.mean[:4, None, None], (1, 4, 8, 16)).astype(np.float32)
    for deviations, told in ((900.0, False), (1100.0, True)):
        check = InstabilityCheck(model, [Limits()] * 4)
        check.begin(states)
        off = states.copy()
        off[0, 1, 0, 0] -= deviations * 11.0
        check.look(off, 3)
        assert (check.warning is not None) == told
    assert "more than 1000 standard deviations from the mean of the training period" in check.warning


def test_the_earliest_lead_time_of_all_batches_is_told(networks):
    model = networks()
    states = np.broadcast_to(model.mean[:4, None, None], (1, 4, 8, 16)).astype(np.float32)
    check = InstabilityCheck(model)
    for start, first in (("a", 3), ("b", 2), ("c", 4)):
        check.begin(states, [start])
        for step in range(1, 5):
            check.look(states * (np.nan if step >= first else 1.0), step)
    assert "(3 of 3 forecasts): at a lead time of 12 h" in check.warning
    assert "from b." in check.warning
