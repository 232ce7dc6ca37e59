"""Parameters: every fault is told at once, with the nearest known name."""

from __future__ import annotations

import datetime as dt

import pytest

from weathermill.errors import ParameterError
from weathermill.parameters import validate_parameters
from weathermill.pipelines.train.configuration import train_config

GOOD = {"ingest": {"variables": ["temperature"]}}


def test_defaults_are_the_published_reference():
    train = validate_parameters(GOOD).train
    assert (train.batch_size, train.epochs, train.learning_rate, train.weight_decay) == (4, 10, 1e-4, 1e-5)


def test_all_faults_are_reported_together_with_suggestions():
    with pytest.raises(ParameterError) as caught:
        validate_parameters(
            {
                "ingest": {"variables": ["temperature"], "levls": [500]},
                "trian": {},
                "train": {"epochs": 0, "step": {"precison": "bf16"}},
            }
        )
    message = str(caught.value)
    assert "4 faults" in message
    assert "ingest.levls: unknown parameter; did you mean 'levels'?" in message
    assert "trian: unknown parameter; did you mean 'train'?" in message
    assert "train.step.precison: unknown parameter; did you mean 'precision'?" in message
    assert "train.epochs" in message and "given: 0" in message


def test_missing_group_is_named():
    with pytest.raises(ParameterError, match="ingest: missing"):
        validate_parameters({})


def test_a_period_may_be_written_as_a_date():
    splits = {
        "train": {"start": None, "stop": dt.date(2016, 1, 1)},
        "validation": {"start": "2016-01-01", "stop": dt.datetime(2017, 1, 1, 6)},
        "test": {"start": "2017-01-01"},
    }
    parsed = validate_parameters({**GOOD, "splits": splits}).splits
    assert parsed.train.stop == "2016-01-01"
    assert parsed.validation.stop == "2017-01-01T06:00:00"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 0.7, "validation": 0.2, "test": 0.2}, "more than 1"),
        ({"train": 0.7, "validation": {"start": "2016"}, "test": 0.2}, "all three"),
        ({"train": {"strat": "2016"}, "validation": {}, "test": {}}, "did you mean 'start'"),
    ],
)
def test_bad_splits(splits, message):
    with pytest.raises(ParameterError, match=message):
        validate_parameters({**GOOD, "splits": splits})


def test_a_misspelt_period_is_one_fault():
    with pytest.raises(ParameterError, match="1 fault in"):
        validate_parameters({**GOOD, "splits": {"train": {"strat": "2016"}, "validation": {}, "test": {}}})


def test_ingest_needs_something_to_ingest():
    with pytest.raises(ParameterError, match="at least one of variables"):
        validate_parameters({"ingest": {"variables": []}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluate": {"regions": [{"name": "tropics"}]}}, "used twice: tropics"),
        ({"evaluate": {"regions": [{"name": "a", "south": 10, "north": 5}]}}, "lies north of north"),
        (
            {"evaluate": {"regions": [{"nam": "a"}]}},
            "evaluate.regions.0.nam: unknown parameter; did you mean 'name'",
        ),
        ({"evaluate": {"climatology": "monthly"}}, "evaluate.climatology"),
        (
            {"forecast": {"initial_times": {"strat": "2001"}}},
            "initial_times.strat: unknown parameter; did you mean",
        ),
        ({"forecast": {"initial_times": [3.5]}}, "1 fault in the parameters:\n  forecast.initial_times.0"),
        ({"compare": {"runs": [1, 2]}}, "compare.runs.0"),
    ],
)
def test_bad_evaluation_forecasts_and_comparisons(given, message):
    with pytest.raises(ParameterError, match=message):
        validate_parameters({**GOOD, **given})


def test_initial_times_are_a_list_a_text_or_a_range():
    def parse(value):
        return validate_parameters({**GOOD, "forecast": {"initial_times": value}}).forecast.initial_times

    assert parse([dt.date(2001, 1, 20), "2001-01-21T06:00"]) == ["2001-01-20", "2001-01-21T06:00"]
    assert parse("2001-01-20 2001-01-21") == ["2001-01-20", "2001-01-21"]
    assert parse({"start": dt.date(2001, 1, 20), "every_hours": 12}).every_hours == 12


def test_losses_are_weighted_by_variable_and_level():
    weights = {
        "variables": {"temperature": 2, "temperature_850": 1},
        "levels": {500: 0.5, 850.0: 1},
        "surface": 0.1,
    }
    train = validate_parameters({**GOOD, "train": {"loss_weights": weights, "spectral_weight": 0.5}}).train
    assert train.loss_weights.levels == {500.0: 0.5, 850.0: 1.0}
    built = train_config(train, seed=0)
    assert (
        built.loss_weights.variables == {"temperature": 2.0, "temperature_850": 1.0}
        and built.spectral_weight == 0.5
    )
    pressure = {"train": {"loss_weights": {"levels": "pressure"}, "error_unit": "state", "huber_delta": 2}}
    built = train_config(validate_parameters({**GOOD, **pressure}).train, seed=0)
    assert built.loss_weights.levels == "pressure"
    assert (built.error_unit, built.huber_delta) == ("state", 2.0)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"loss_weights": {"variables": {"temperature": -1}}}, "train.loss_weights.variables.temperature"),
        ({"loss_weights": {"levels": "height"}}, "train.loss_weights.levels"),
        ({"loss_weights": {"levels": {"500": "much"}}}, "train.loss_weights.levels"),
        ({"loss_weights": {"surfaces": 1}}, "did you mean 'surface'"),
        ({"error_unit": "kelvin"}, "train.error_unit"),
        ({"huber_delta": 0}, "train.huber_delta"),
        ({"spectral_weight": -0.1}, "train.spectral_weight"),
        ({"loss_weights": {"variables": {"temprature": 2}}}, "names temprature, which is not among"),
        ({"spectral_variables": ["humidity_850"]}, "names humidity_850"),
    ],
)
def test_wrong_losses_are_refused(train, message):
    with pytest.raises(ParameterError, match=message):
        validate_parameters({**GOOD, "train": train})


@pytest.mark.parametrize(
    ("allowed", "message"),
    [(["sst"], "allow_missing names sst, which is not among"), (["land_sea_mask"], "a static variable")],
)
def test_only_what_is_ingested_and_changes_may_be_missing(allowed, message):
    ingest = {"variables": ["temperature"], "static_variables": ["land_sea_mask"], "allow_missing": allowed}
    with pytest.raises(ParameterError, match=message):
        validate_parameters({"ingest": ingest})


def test_a_value_in_place_of_a_list_is_told_how_lists_are_set():
    with pytest.raises(ParameterError, match=r"such as \[50\] \(given: 50\)"):
        validate_parameters({"ingest": {"variables": ["temperature"], "levels": 50}})


def test_dates_are_checked_before_any_work_and_may_be_of_any_calendar():
    def ingest(start):
        return validate_parameters({"ingest": {"variables": ["temperature"], "start": start}}).ingest.start

    assert ingest("2001-02-30") == "2001-02-30"
    assert ingest(2001) == "2001"
    assert ingest(dt.date(2001, 2, 3)) == "2001-02-03"
    for text in ("yesterday", "2001-13-01", "2001-01-41", "01/02/2001"):
        with pytest.raises(ParameterError, match=r"ingest\.start: .*date"):
            ingest(text)
