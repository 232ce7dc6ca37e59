"""A forecast starts from no state that cannot be, and reads its source as the training did."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.errors import ImplausibleValueError, MissingDataError, ParameterError, UnitsError
from weathermill.fields.conventions import canonicalise
from weathermill.forecasting import ReadOptions, forecast, stream_forecasts
from weathermill.forecasting.requests import answer
from weathermill.parameters import ForecastParameters, IngestParameters, RegridParameters, SplitParameters
from weathermill.pipelines.forecast import nodes


@pytest.fixture
def warm(source):
    """The source in kelvin, in which 2 m temperature is far from any limit."""
    return source.assign(t2m=(source["t2m"] + 273.15).assign_attrs(source["t2m"].attrs, units="K"))


def last(source, value, share=1.0):
    """Put a value into a share of the last state's 2 m temperature."""
    changed = source.copy(deep=True)
    flat = changed["t2m"].values[-1].reshape(-1)
    flat[: max(1, int(share * flat.size))] = value
    return changed


def start(how, model, source, **options):
    """Forecast from the last state by one of the ways there are."""
    if how == "call":
        return forecast(model, source, lead_time_hours=6, **options)
    if how == "stream":
        stream = stream_forecasts(model, source, lead_time_hours=6, batch_size=6, **options)
        return next(piece for _, piece in stream).isel(init_time=-1)
    return xr.Dataset({"all": (("n", "c", "y", "x"), answer(model, source.isel(time=[-1]))["forecast"][0])})


WAYS = ["call", "stream", "request"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("value", "share", "text"),
    [
        (-9999.0, 1.0, "usual fill value -9999"),
        (-9999.0, 0.0, "usual fill value -9999"),
        (np.inf, 0.0, "infinite"),
        (1e15, 0.0, "absurdly far beyond"),
        (
            365.0,
            0.1,
            r"9\.38 % of the values lie beyond the physical limits 150 to 350; they run from .* to 365",
        ),
    ],
)
def test_states_that_cannot_be_are_refused(how, networks, warm, value, share, text):
    with pytest.raises(ImplausibleValueError, match=text):
        start(how, networks(), last(warm, value, share))


@pytest.mark.parametrize("how", WAYS)
def test_a_few_values_beyond_the_limits_are_told_and_go_on(how, networks, warm, caplog):
    odd = last(warm, 365.0, 0.0)
    start(how, networks(), odd)
    text = "0.781 % of the values lie beyond the physical limits 150 to 350"
    if how == "request":
        assert any(text in note for note in answer(networks(), odd.isel(time=[-1]))["notes"])
    else:
        assert [text in r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [True]


def test_an_array_is_held_to_the_limits_too(networks, warm):
    model = networks()
    values = np.full((1, 4, 8, 16), 270.0, np.float32)
    values[0, 0] = 5.5e4
    assert answer(model, values)["notes"] == []
    values[0, 2, 3, 3:9] = 400.0
    with pytest.raises(ImplausibleValueError, match=r"temperature_850 of the state number 0: 4\.69 %"):
        answer(model, values)


def test_forcings_to_come_are_held_to_their_limits(networks, warm):
    shape = warm["t2m"].shape
    sun = np.full(shape, 1e6, np.float32)
    sun[-1] = 7.3e8
    forced = warm.assign(
        toa_incident_solar_radiation=(("time", "latitude", "longitude"), sun, {"units": "J m-2"})
    )
    model = networks(forcing="toa_incident_solar_radiation")
    forecast(model, forced, initial_time="2001-01-01T00:00", lead_time_hours=12)
    with pytest.raises(
        ImplausibleValueError, match="toa_incident_solar_radiation of the state at 2001-01-02T06:00"
    ):
        forecast(model, forced, initial_time="2001-01-01T18:00", lead_time_hours=18)


def test_units_and_limits_hold_for_initial_states(networks, warm):
    unknown = warm.assign(t2m=(warm["t2m"] - 273.15).assign_attrs(units=""))
    with pytest.raises(UnitsError):
        forecast(networks(), unknown, lead_time_hours=6)
    told = forecast(
        networks(), unknown, lead_time_hours=6, options=ReadOptions(units={"2m_temperature": "degC"})
    )
    np.testing.assert_allclose(
        told["2m_temperature"], forecast(networks(), warm, lead_time_hours=6)["2m_temperature"]
    )
    hot = last(warm, 365.0)
    forecast(networks(), hot, lead_time_hours=6, options=ReadOptions(limits={"2m_temperature": [150, 400]}))


def test_gaps_are_filled_as_in_training(networks, warm):
    gap = last(warm, np.nan, 0.0)
    with pytest.raises(
        MissingDataError, match=r"(?s)missing values in 2m_temperature.*ingest\.fill.*ingest\.allow_missing"
    ):
        forecast(networks(), gap, lead_time_hours=6)
    model = networks()

    def at_gap(**options):
        weather = forecast(model, gap, lead_time_hours=6, options=ReadOptions(**options))
        # The network forecasts persistence; latitudes come out descending.
        return float(weather["2m_temperature"][0, -1, 0])

    assert at_gap(fill={"2m_temperature": 271.5}) == pytest.approx(271.5)
    # Its neighbours along the circle of latitude are equally near.
    assert at_gap(fill={"2m_temperature": "nearest"}) in gap["t2m"].values[-1, 0, [1, -1]]
    mean = float(gap["t2m"][:3, 0, 0].mean())
    period = ("2001-01-01", "2001-01-01T18:00")
    assert at_gap(fill={"2m_temperature": "climatology"}, training=period) == pytest.approx(mean, rel=1e-6)


def test_a_climatology_that_a_forecast_cannot_know_is_refused_only_where_there_is_a_gap(networks, warm):
    gap = last(warm, np.nan, 0.0)
    rule = {"2m_temperature": "climatology"}
    forecast(networks(), warm, lead_time_hours=6, options=ReadOptions(fill=rule))
    with pytest.raises(ParameterError, match=r"splits\.train is a fraction(?s:.*)nearest"):
        forecast(networks(), gap, lead_time_hours=6, options=ReadOptions(fill=rule))
    early = ReadOptions(fill=rule, training=("1990-01-01", "1999-01-01"))
    with pytest.raises(ParameterError, match=r"runs from 2001-01-01T00:00 to 2001-01-02T06:00"):
        forecast(networks(), gap, lead_time_hours=6, options=early)


def test_rules_for_variables_and_for_levels_are_found_however_fields_are_read(networks, warm):
    gap = warm.copy(deep=True)
    gap["t"][-1, :, 0, 0] = np.nan
    weather = forecast(networks(), gap, lead_time_hours=6, options=ReadOptions(fill={"temperature": 250.0}))
    np.testing.assert_allclose(weather["temperature"].sel(level=850)[0, -1, 0], 250.0, rtol=1e-6)
    with pytest.raises(MissingDataError, match="temperature_850"):
        forecast(networks(), gap, lead_time_hours=6, options=ReadOptions(fill={"temperature_500": 250.0}))
    together = canonicalise([gap], variables=["temperature"])
    both = ReadOptions(fill={"temperature_500": 1.0, "temperature_850": 1.0}).prepared(together)
    assert not both["temperature"].isnull().any()
    with pytest.raises(ParameterError, match="levels of temperature have different options"):
        ReadOptions(fill={"temperature_500": 250.0}).prepared(together)


class Opened:
    """What the catalog's raw fields give."""

    names = ("made by a test",)

    def __init__(self, dataset):
        self.datasets = [dataset]

    def __iter__(self):
        return iter(self.datasets)


def test_the_stages_hand_on_what_ingest_says(networks, warm, monkeypatch):
    monkeypatch.setattr(nodes, "settle_reduced_grids", lambda raw, policy: raw)
    gap = last(warm, np.nan, 0.0).rename(t2m="airtemp")
    gap["airtemp"].attrs = {"units": "K"}
    ingest = IngestParameters(
        variables=["geopotential_500", "temperature"],
        surface_variables=["2m_temperature"],
        names={"airtemp": "2m_temperature"},
        fill={"2m_temperature": "climatology"},
    )
    splits = SplitParameters(
        train={"start": "2001-01-01", "stop": "2001-01-01T18:00"},
        validation={"start": "2001-01-01T18:00", "stop": "2001-01-02"},
        test={"start": "2001-01-02"},
    )
    asked = ForecastParameters(lead_time_hours=6, initial_times={})
    initial = nodes.read_initial_state(Opened(gap), networks(), RegridParameters(), asked, ingest, splits)
    mean = float(gap["airtemp"][:3, 0, 0].mean())
    found = initial["state"].sel(channel="2m_temperature").values[-1, 0]
    assert found == pytest.approx(mean, rel=1e-6)
    stream = nodes.make_forecasts(Opened(gap), networks(), RegridParameters(), asked, ingest, splits)
    assert stream.reader.read([5]).sel(channel="2m_temperature").values[0, -1, 0] == pytest.approx(
        mean, rel=1e-6
    )
