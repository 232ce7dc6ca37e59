"""What ``kedro run --params`` takes."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from weathermill.cli import run
from weathermill.overrides import format_override, parse_overrides
from weathermill.tracking.reproduction import command_of


def test_lists_mappings_and_nothing_are_written_as_in_yaml():
    text = (
        "ingest.levels=[500, 850],ingest.surface_variables=[],regrid.target=null,train.rollout=[1],"
        "ingest.units={t2m: 'deg C, or so', z: m},splits.train.stop=2018-01-01T12:00,force=true"
    )
    assert parse_overrides(text) == {
        "ingest": {"levels": [500, 850], "surface_variables": [], "units": {"t2m": "deg C, or so", "z": "m"}},
        "regrid": {"target": None},
        "train": {"rollout": [1]},
        "splits": {"train": {"stop": "2018-01-01T12:00"}},
        "force": True,
    }
    assert parse_overrides("") == {}


@pytest.mark.parametrize("text", ["train.epochs", "=5", "ingest.levels=[500,850"])
def test_what_cannot_be_read_is_refused_with_an_example(text):
    result = CliRunner().invoke(run, ["--params", text])
    assert result.exit_code == 2
    assert "name=value" in result.output or "brackets" in result.output


@pytest.mark.parametrize(
    "value", [None, True, 5, 0.004, "1deg", "2018", "a, b", "it's", "[x", [500, 850], ["a", "b, c"], [], ""]
)
def test_the_command_that_a_run_records_gives_the_same_parameters_again(value):
    given = {"regrid": {"target": value}, "seed": 1}
    assert parse_overrides(format_override("regrid.target", value)) == {"regrid": {"target": value}}
    words = shlex.split(command_of({"runtime_params": given}))
    assert parse_overrides(words[-1].removeprefix("--params=")) == given
