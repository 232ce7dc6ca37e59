"""Bad input ends in one clear error before any training, and leaves nothing half-written under a final name."""

from __future__ import annotations

import shutil
from collections import namedtuple

import numpy as np
import pytest
import xarray as xr

from weathermill import errors
from weathermill.datasets.local import plain_error

SAMPLE = ("01_raw", "speedy_t21_sample.nc")


def refused(project, *pipelines, params=None):
    with pytest.raises(BaseException) as caught:
        project.run(*(pipelines or ("prepare",)), params=params)
    error = plain_error(caught.value)
    assert error is not None, caught.value
    assert not project.file("06_models").exists()
    assert not list(project.path.rglob("*.partial"))
    return error


def change_sample(project, change):
    path = project.file(*SAMPLE)
    with xr.open_dataset(path) as sample:
        changed = change(sample.load())
    path.unlink()
    changed.to_netcdf(path)


def test_missing_variable_names_what_the_file_offers(project):
    error = refused(project, params={"ingest": {"surface_variables": ["total_precipitation"]}})
    assert isinstance(error, errors.MissingVariableError)
    assert "total_precipitation" in str(error) and "2m_temperature" in str(error)


def test_missing_level_names_what_the_file_offers(project):
    error = refused(project, params={"ingest": {"levels": [500, 50]}})
    assert isinstance(error, errors.MissingLevelError)
    assert "50" in str(error) and "850" in str(error)


def test_units_that_cannot_be_converted(project):
    def change(sample):
        sample["t"].attrs["units"] = "m s**-1"
        return sample

    change_sample(project, change)
    error = refused(project)
    assert isinstance(error, errors.UnitsError)
    assert "temperature" in str(error) and "m s" in str(error)


def test_truncated_file_is_named(project):
    path = project.file(*SAMPLE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = refused(project)
    assert isinstance(error, errors.UnreadableSourceError)
    assert "speedy_t21_sample.nc" in str(error)


def test_missing_values_name_channel_and_time(project):
    def change(sample):
        sample["t"].load()
        sample["t"].encoding.clear()
        index = {dim: 1 for dim in sample["t"].dims}
        sample["t"][index] = np.nan
        return sample

    change_sample(project, change)
    error = refused(project)
    assert isinstance(error, errors.MissingDataError)
    assert "temperature" in str(error)
    assert not project.file("05_model_input").exists()


def test_empty_time_selection_says_what_there_is(project):
    error = refused(project, params={"ingest": {"start": "1900-01-01", "stop": "1900-02-01"}})
    assert isinstance(error, errors.EmptySelectionError)
    assert "1900" in str(error) and "2000" in str(error)


def test_unknown_parameter_name(project):
    error = refused(project, params={"train": {"epoch": 3}})
    assert isinstance(error, errors.ParameterError)
    assert "did you mean 'epochs'" in str(error)


def test_unwritable_output(project):
    project.file("02_intermediate").write_text("a file where a folder should be")
    error = refused(project)
    assert isinstance(error, errors.UnwritableOutputError)
    assert "02_intermediate" in str(error)


def test_missing_source_says_where_it_looked(project):
    project.file(*SAMPLE).unlink()
    error = refused(project)
    assert isinstance(error, errors.SourceNotFoundError)
    assert "01_raw" in str(error)


def test_the_command_ends_with_one_plain_error_and_status_1(project):
    result = project.command("run", "--params", "train.epoch=3")
    assert result.returncode == 1
    assert "train.epoch: unknown parameter; did you mean 'epochs'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failed_run_is_recorded_as_failed(project):
    refused(project, params={"ingest": {"levels": [500, 50]}})
    runs = project.experiment_runs()
    assert list(runs["status"]) == ["FAILED"]
    assert "WM203" in runs["tags.error"][0]


def test_regridding_beyond_its_threshold_stops_the_run(project):
    error = refused(project, params={"regrid": {"thresholds": {"conservation_error": 0.0}}})
    assert isinstance(error, errors.GridError)
    assert "temperature" in str(error)


def test_a_disk_that_is_too_small_stops_the_run_before_its_first_stage(project, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30 - 2**22, 2**22))
    error = refused(project, "__default__")
    assert isinstance(error, errors.ResourceError)
    assert "4.0 MiB are free" in str(error) and "disk_check=false" in str(error)
    made = [path for path in project.file().rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert made == [project.file(*SAMPLE)]


def test_an_unknown_grid_stops_the_run_before_its_first_stage(project):
    error = refused(project, params={"regrid": {"target": "1.5grd"}})
    assert isinstance(error, errors.GridError)
    assert "'1.5grd'" in str(error)
    assert not project.file("02_intermediate", "sample", "fields.zarr").exists()
