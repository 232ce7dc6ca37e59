"""What is wrong with values is found in every block that is written, and kept with those that stand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from kedro.io import DatasetError

from weathermill.datasets import ZarrFieldsDataset, sharded
from weathermill.datasets.local import plain_error
from weathermill.errors import ImplausibleValueError
from weathermill.fields.inspection import InspectionReport
from weathermill.fields.layout import GuardedReader
from weathermill.fields.opening import open_sources
from weathermill.fields.value_counts import counts_of
from weathermill.parameters import IngestParameters, RegridParameters, SplitParameters
from weathermill.pipelines.ingest import nodes
from weathermill.pipelines.regrid.nodes import choose_target_grid, make_regrid_weights, regrid_fields

#: Four steps a shard.
SMALL = {"chunk_bytes": 1200, "shard_bytes": 2400}


def write(path, steps=24, first=0, **changes):
    """Six-hourly 2 m temperature on 9 x 16 points; ``changes`` are values of time steps, at one point or everywhere."""
    values = (280 + np.random.default_rng(0).normal(size=(100, 9, 16))).astype(np.float32)
    for (step, *place), value in changes.get("at", {}).items():
        values[(step, *place)] = value
    xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values[first : first + steps], {"units": "K"})},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + (first + np.arange(steps)) * np.timedelta64(6, "h"),
            "latitude": ("latitude", np.linspace(90, -90, 9), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
        },
    ).to_netcdf(path)
    return path


def fields_of(paths, **parameters):
    asked = IngestParameters(variables=[], surface_variables=["2m_temperature"], **parameters)
    return nodes.ingest_fields(open_sources(paths), InspectionReport(), asked, SplitParameters())


def dataset(folder, name="fields.zarr"):
    return ZarrFieldsDataset(filepath=str(folder / name), save_args=SMALL)


def warnings(caplog):
    return [r.message for r in caplog.records if r.levelname == "WARNING" and "beyond" in r.message]


@pytest.mark.parametrize(("value", "text"), [(np.inf, "1 value infinite"), (1e15, "absurdly far beyond")])
def test_one_value_in_a_step_that_no_sample_holds_is_refused_and_the_old_store_stays(tmp_path, value, text):
    old = dataset(tmp_path)
    old.save(fields_of(write(tmp_path / "a.nc")))
    before = xr.open_zarr(tmp_path / "fields.zarr").load()
    bad = fields_of(write(tmp_path / "b.nc", at={(13, 4, 5): value}))
    with pytest.raises(DatasetError) as caught:
        dataset(tmp_path).save(bad)
    error = plain_error(caught.value)
    assert isinstance(error, ImplausibleValueError) and text in error.what
    assert "2020-01-04T06:00, latitude 0, longitude 112.5" in error.what
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "fields.zarr").load(), before)


def test_a_share_beyond_the_limits_is_refused_before_all_is_read(tmp_path, monkeypatch):
    reads = []
    original = GuardedReader.__getitem__
    monkeypatch.setattr(
        GuardedReader, "__getitem__", lambda self, key: reads.append(key) or original(self, key)
    )
    monkeypatch.setattr(nodes, "canonicalise", _small_blocks(nodes.canonicalise))
    source = write(tmp_path / "a.nc", steps=40, at={(0,): 90.0})
    with pytest.raises(
        DatasetError, match=r"at least 2\.5 % of the values lie beyond the physical limits 150 to 350"
    ):
        dataset(tmp_path).save(fields_of(source))
    assert not (tmp_path / "fields.zarr").exists()
    assert sum(key[0].stop - key[0].start for key in reads) <= 8
    # What is right all the same goes through with limits of its own.
    dataset(tmp_path).save(fields_of(source, limits={"2m_temperature": [50, 350]}))
    assert counts_of(dataset(tmp_path).load())["2m_temperature"].minimum[0] == 90.0


def _small_blocks(function):
    return lambda *args, **options: function(*args, **{**options, "block_bytes": 2400})


def test_what_was_found_before_an_interruption_is_told_after_it(tmp_path, monkeypatch, caplog):
    source = write(tmp_path / "a.nc", at={(1, 2, 3): 500.0})
    original = sharded.ShardedWriter._note

    def interrupted(self, *args):
        original(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sharded.ShardedWriter, "_note", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset(tmp_path).save(fields_of(source))
    assert warnings(caplog) == []
    dataset(tmp_path).save(fields_of(source))
    (message,) = warnings(caplog)
    assert "to 500 (1 of them, the first at 2020-01-01T06:00, latitude 45, longitude 67.5)" in message
    dataset(tmp_path, "whole.zarr").save(fields_of(source))
    whole, resumed = (counts_of(dataset(tmp_path, n).load()) for n in ("whole.zarr", "fields.zarr"))
    assert resumed["2m_temperature"].to_json() == whole["2m_temperature"].to_json()


def test_steps_that_stand_are_counted_with_new_ones(tmp_path, caplog):
    paths = [write(tmp_path / "a.nc", steps=20, at={(5, 2, 3): 500.0})]
    dataset(tmp_path).save(fields_of(paths))
    paths.append(write(tmp_path / "b.nc", steps=20, first=20))
    caplog.clear()
    dataset(tmp_path).save(fields_of(paths))
    (message,) = warnings(caplog)
    assert "0.0174 % of the values" in message and "to 500 (1 of them" in message
    assert counts_of(dataset(tmp_path).load())["2m_temperature"].seen == 40 * 9 * 16


@pytest.mark.parametrize("target", [None, "8x16"])
def test_regridded_fields_are_counted_too_and_nothing_is_told_twice(tmp_path, caplog, target):
    dataset(tmp_path).save(fields_of(write(tmp_path / "a.nc", at={(1, 2, 3): 900.0})))
    assert len(warnings(caplog)) == 1
    fields, parameters = dataset(tmp_path).load(), RegridParameters(target=target, method="bilinear")
    grid = choose_target_grid(fields, parameters)
    weights = make_regrid_weights(fields, grid, None, parameters)
    regridded = regrid_fields(fields, weights, grid, parameters)
    stored = dataset(tmp_path, "regridded.zarr")
    stored.save(regridded)
    assert len(warnings(caplog)) == 1
    assert counts_of(stored.load())["2m_temperature"].outside[0] == (1 if target is None else 2)
    wrong = regridded.map(lambda field: field + 500.0)
    with pytest.raises(DatasetError, match=r"at least 16.7 % of the values .* they run from"):
        stored.save(wrong)
    assert counts_of(stored.load())["2m_temperature"].outside[0] == (1 if target is None else 2)
