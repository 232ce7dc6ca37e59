"""Every error is provoked by real input through public functions, and says what, where and what to do about it.

A case is a function that fails; `case` says with which error, and what its message must name. Every class of
`weathermill.errors` needs one, or several where it has several meanings.
"""

from __future__ import annotations

import fcntl
import inspect
import logging
import shutil
import struct
import zipfile
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from weathermill import errors
from weathermill.datasets.local import plain_error
from weathermill.fields.conventions import canonicalise
from weathermill.fields.grids import grid_of, named_grid
from weathermill.fields.opening import open_sources
from weathermill.parameters import validate_parameters
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.store import TensorStore, TensorWriter

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value)
    and issubclass(value, errors.WeathermillError)
    and value is not errors.WeathermillError
]
CASES = []
usage = namedtuple("usage", "total used free")


def case(error, *names, where=""):
    """Register a function that must end in ``error``, whose message names ``names``."""

    def register(function):
        CASES.append(pytest.param(error, names, where, function, id=f"{error.code}-{function.__name__}"))
        return function

    return register


@dataclass
class Here:
    """What cases may use: a folder, monkeypatch, and makers of small inputs."""

    path: Path
    patch: pytest.MonkeyPatch

    def source(self, name="source.nc", **changes) -> Path:
        path = self.path / name
        source(**changes).to_netcdf(path)
        return path

    def store(self, **changes) -> TensorStore:
        return write_store(self.path / "store", **changes)

    def little_disk(self, free: int) -> None:
        self.patch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))


def source(n_time=6, levels=(500.0, 850.0), units="K", n_lat=6, n_lon=12, step=6, start="2020-01-01"):
    times = np.datetime64(start, "ns") + np.arange(n_time) * np.timedelta64(step, "h")
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "t": (
                ("time", "level", "latitude", "longitude"),
                (260 + rng.normal(size=(n_time, len(levels), n_lat, n_lon))).astype(np.float32),
                {"units": units} if units else {},
            )
        },
        coords={
            "time": times,
            "level": ("level", np.array(levels), {"units": "hPa"}),
            "latitude": ("latitude", np.linspace(75, -75, n_lat), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(n_lon) * 360.0 / n_lon, {"units": "degrees_east"}),
        },
    )


def channels(static=True):
    table = [
        Channel("temperature_500", "temperature", 500.0, "prognostic", "K"),
        Channel("temperature_850", "temperature", 850.0, "prognostic", "K"),
    ]
    return ChannelTable(table + static * [Channel("orography", "orography", None, "static", "m")])


def described(n_times=24, **changes):
    return {
        "channels": channels(),
        "latitude": np.linspace(80, -80, 8),
        "longitude": np.arange(16) * 22.5,
        "times": np.arange(n_times) * 21600,
        "calendar": "standard",
        "time_step": 21600,
        "area_weights": np.ones(8),
        "mean": np.array([250.0, 280.0, 0.0]),
        "std": np.array([10.0, 12.0, 1.0]),
        "tendency_std": np.array([1.0, 2.0, 0.0]),
        "splits": {"train": [(0, 14)], "validation": [(14, 19)], "test": [(19, 24)]},
        "static": np.ones((1, 8, 16), np.float32),
        "dtype": "float32",
        "steps_per_shard": 8,
        "fingerprint": "f",
        **changes,
    }


def write_store(path, values=None, **changes) -> TensorStore:
    given = described(**changes)
    n = len(given["times"])
    values = (
        np.random.default_rng(0).normal(size=(n, 2, 8, 16)).astype(np.float32) if values is None else values
    )
    writer = TensorWriter(path, **given)
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    writer.finish()
    return TensorStore(path)


def forecaster(store=None, **changes):
    from weathermill.models.forecaster import Forecaster
    from weathermill.models.registry import ModelConfig

    given = described()
    arguments = {
        name: given[name] for name in ("latitude", "longitude", "mean", "std", "tendency_std", "static")
    }
    return Forecaster(
        ModelConfig(base_channels=4, depth=1, norm="none"), channels(), **{**arguments, **changes}
    ).eval()


def flip(path: Path, offset: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def train_again(here, store, **changes):
    from weathermill.models.registry import ModelConfig
    from weathermill.training.checkpoint import CheckpointManager
    from weathermill.training.config import TrainConfig
    from weathermill.training.engine import train
    from weathermill.training.step import StepConfig
    from weathermill.training.tracker import NullTracker

    settings = {"epochs": 1, "batch_size": 4, "step": StepConfig(precision="fp32")}
    resume = changes.pop("resume", False)
    stop = changes.pop("stop_requested", None)
    return train(
        store,
        ModelConfig(base_channels=4, depth=1, norm="none"),
        TrainConfig(**{**settings, **changes}),
        CheckpointManager(here.path / "checkpoints"),
        NullTracker(),
        device="cpu",
        resume=resume,
        progress=False,
        stop_requested=stop,
    )


# parameters and configuration


@case(errors.ParameterError, "train.epoch", "did you mean 'epochs'", "conf/<env>")
def unknown_parameter(here):
    validate_parameters({"ingest": {"variables": ["temperature"]}, "train": {"epoch": 3}})


@case(errors.ParameterError, "mlflow.yml", "tracking_url")
def unknown_setting_of_mlflow(here):
    from weathermill.tracking.settings import tracking_settings

    tracking_settings({"tracking_url": "x"})


@case(errors.ParameterError, "compare.runs", "RUN_A..RUN_B")
def one_run_to_compare(here):
    from weathermill.tracking.comparison import parse_runs

    parse_runs("abc")


@case(errors.ParameterError, "'bicubic'", "conservative")
def unknown_method(here):
    from weathermill.fields.weight_making import make_weights

    make_weights(named_grid("6x12"), named_grid("4x8"), "bicubic")


@case(errors.ParameterError, "'nowhere'", "south (10", "north (-10")
def region_upside_down(here):
    from weathermill.verification.regions import Region

    Region("nowhere", 10.0, -10.0, 0.0, 20.0)


@case(errors.ParameterError, "learning_rate=-1")
def negative_learning_rate(here):
    from weathermill.training.optimiser import OptimiserConfig

    OptimiserConfig(learning_rate=-1.0)


@case(errors.ParameterError, "temperature_500", "--env=weatherbench1")
def store_without_the_published_channels(here):
    from weathermill.pipelines.evaluate.published import weatherbench1_baselines

    table = ChannelTable([Channel("temperature_500", "temperature", 500.0, "prognostic", "K")])
    given = described(channels=table, static=None, mean=np.ones(1), std=np.ones(1), tendency_std=np.ones(1))
    weatherbench1_baselines(write_store(here.path / "store", np.ones((24, 1, 8, 16), np.float32), **given))


@case(errors.ConfigurationError, "'trian'", "train", where="trian")
def unknown_pipeline(here):
    from weathermill.faults import require_known

    require_known(["trian"], ["train", "evaluate"], "pipeline")


# sources


@case(errors.SourceNotFoundError, "matches nothing", "source.nc", "raw_fields", where="era5_*.nc")
def empty_glob(here):
    here.source()
    open_sources(here.path / "era5_*.nc")


@case(errors.SourceNotFoundError, "does not exist", where="memory://nowhere")
def absent_url(here):
    open_sources("memory://nowhere.nc")


@case(errors.SourceNotFoundError, "matches nothing", where="memory://none_*.nc")
def empty_remote_glob(here):
    open_sources("memory://none_*.nc")


@case(errors.UnreadableSourceError, "truncated or damaged", where="source.nc")
def truncated_file(here):
    path = here.source()
    path.write_bytes(path.read_bytes()[:4000])
    open_sources(path)


@case(errors.UnreadableSourceError, "cannot be decoded", "units", where="source.nc")
def undecodable_file(here):
    dataset = source()
    dataset["time"] = ("time", np.arange(6), {"units": "hours since the flood"})
    dataset.to_netcdf(here.path / "source.nc")
    open_sources(here.path / "source.nc")


@case(errors.UnreadableSourceError, "is neither NetCDF nor GRIB", where="a.zip")
def archive_of_something_else(here):
    with zipfile.ZipFile(here.path / "a.zip", "w") as archive:
        archive.writestr("page.nc", "<html>")
    open_sources(here.path / "a.zip")


@case(errors.UnreadableSourceError, "more than it can", where="a.zip")
def archive_that_claims_too_much(here):
    path = here.path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.nc", b"\0" * 200_000)
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, 2**31)
    path.write_bytes(data)
    open_sources(path)


@case(errors.UnreadableSourceError, "GRIB", where="a.grib")
def cut_grib_message(here):
    pytest.importorskip("eccodes")
    path = here.path / "a.grib"
    path.write_bytes(b"GRIB\0\0\0\x02" + struct.pack(">Q", 4000) + b"\0" * 100)
    open_sources(path)


@case(errors.UnreadableSourceError, "cannot be read", "may read it")
def folder_in_place_of_a_file(here):
    from weathermill.fields.formats import file_format

    file_format(here.path)


@case(errors.ResourceError, "extracting the archive", "TMPDIR", where="a.zip")
def archive_that_does_not_fit_the_disk(here):
    with zipfile.ZipFile(here.path / "a.zip", "w") as archive:
        archive.write(here.source(), "source.nc")
    here.little_disk(1000)
    open_sources(here.path / "a.zip")


@case(errors.MissingVariableError, "geopotential", "temperature")
def missing_variable(here):
    canonicalise([source()], variables=["geopotential"])


@case(errors.MissingVariableError, "orography")
def missing_static_field(here):
    from weathermill.fields.flatten import static_channels

    static_channels(canonicalise([source()], variables=["temperature"]), static=["orography"])


@case(errors.MissingLevelError, "50 hPa", "850", where="era5.nc")
def missing_level(here):
    canonicalise([source()], variables=["temperature"], levels=[50], source_names=["era5.nc"])


@case(errors.UnitsError, "temperature", "'kg'", "ingest.units", where="era5.nc")
def wrong_units(here):
    canonicalise([source(units="kg")], variables=["temperature"], source_names=["era5.nc"])


@case(errors.UnitsError, "temperature", "no units", where="source")
def no_units_and_nothing_to_judge_by(here):
    dataset = source(units="")
    dataset["t"][:] = np.nan
    canonicalise([dataset], variables=["temperature"])


@case(errors.SourceConflictError, "land_sea_mask", "different fields", "by up to 1", where="b.nc")
def land_sea_masks_of_two_models(here):
    mask = source(units="1").isel(time=0, level=0, drop=True).rename(t="lsm") * 0.0
    mask["lsm"].attrs["units"] = "1"
    sources = [source().merge(mask), mask + 1.0]
    sources[1]["lsm"].attrs["units"] = "1"
    canonicalise(
        sources,
        variables=["temperature"],
        static_variables=["land_sea_mask"],
        source_names=["a.nc", "b.nc"],
    )


@case(errors.CoordinateError, "latitude has missing values", where="source")
def latitude_with_a_hole(here):
    dataset = source()
    latitude = dataset["latitude"].values.copy()
    latitude[2] = np.nan
    canonicalise([dataset.assign_coords(latitude=("latitude", latitude))], variables=["temperature"])


@case(errors.CoordinateError, "the same latitude occurs twice")
def latitude_twice(here):
    dataset = source()
    latitude = dataset["latitude"].values.copy()
    latitude[2] = latitude[1]
    canonicalise([dataset.assign_coords(latitude=("latitude", latitude))], variables=["temperature"])


@case(errors.CoordinateError, "longitudes occur twice")
def longitude_twice(here):
    dataset = source()
    longitude = dataset["longitude"].values.copy()
    longitude[[2, 7, 10]] = longitude[[3, 8, 11]]
    canonicalise([dataset.assign_coords(longitude=("longitude", longitude))], variables=["temperature"])


@case(errors.CoordinateError, "channels", "the table only 1")
def channels_beyond_the_table(here):
    from weathermill.fields.flatten import from_channels

    array = xr.DataArray(np.zeros((2, 3, 4)), dims=("channel", "latitude", "longitude"))
    from_channels(array, channels(static=False).to_dicts()[:1])


@case(errors.EmptySelectionError, "1900", "2020")
def no_time_selected(here):
    canonicalise([source()], variables=["temperature"], start="1900-01-01", stop="1901-01-01")


@case(errors.MissingDataError, "temperature", "2020-01-01T06", "ingest.allow_missing")
def missing_values(here):
    from weathermill.fields.missing import refuse_missing

    dataset = source()
    dataset["t"][1, 0, 2, 3] = np.nan
    refuse_missing(canonicalise([dataset], variables=["temperature"])).load()


@case(errors.ImplausibleValueError, "temperature", "2020-01-01T06", "500 hPa", "Correct the source")
def infinite_value(here):
    from weathermill.fields.missing import refuse_missing

    dataset = source()
    dataset["t"][1, 0, 2, 3] = np.inf
    refuse_missing(canonicalise([dataset], variables=["temperature"])).load()


@case(errors.MissingDataError, "static field", "land_sea_mask")
def static_field_with_holes(here):
    from weathermill.fields.statistics import static_statistics

    field = xr.DataArray(
        np.full((1, 4, 8), np.nan, np.float32),
        dims=("channel", "latitude", "longitude"),
        coords={"channel": ["land_sea_mask"], "role": ("channel", ["static"])},
    )
    static_statistics(field, np.ones((4, 8)))


@case(errors.MissingDataError, "no statistics for", "temperature_500")
def statistics_of_other_channels(here):
    from weathermill.fields.statistics import normalise

    array = xr.DataArray(np.zeros((1, 2, 2)), dims=("channel", "latitude", "longitude"))
    array = array.assign_coords(channel=["temperature_500"])
    normalise(array, xr.Dataset(coords={"channel": ["geopotential_500"]}))


@case(errors.TimeAxisError, "1 time steps are missing", "2020-01-01T06", "ingest.missing_steps")
def gap_that_is_refused(here):
    from weathermill.fields.steps import handle_missing_steps

    fields = canonicalise([source()], variables=["temperature"])
    handle_missing_steps(fields.isel(time=[0, 1, 3, 4]), policy="refuse")


@case(errors.TimeAxisError, "calendars", "noleap")
def mixed_calendars(here):
    other = source()
    other["time"] = [cftime.DatetimeNoLeap(2020, 2, 1, 6 * i % 24, 0) for i in range(4)] + [
        cftime.DatetimeNoLeap(2020, 2, 2, 6 * i, 0) for i in range(2)
    ]
    canonicalise([source(), other], variables=["temperature"])


@case(errors.TimeAxisError, "1 time step(s)")
def one_time_step(here):
    from weathermill.pipelines.splitting import time_step_seconds

    time_step_seconds(np.array([0]))


@case(errors.TimeAxisError, "plain numbers", "from_seconds")
def times_without_a_date(here):
    from weathermill.verification.times import as_times

    as_times([0, 6, 12])


# grids and weights


@case(errors.GridError, "'1.5grd'", "1.5deg")
def unknown_grid(here):
    named_grid("1.5grd")


@case(errors.SourceNotFoundError, "does not exist", "nowhere.nc", "regrid.target")
def absent_grid_file(here):
    named_grid({"file": str(here.path / "nowhere.nc")})


@case(errors.GridError, "N1 is out of reach")
def gaussian_grid_out_of_reach(here):
    named_grid("N1")


@case(errors.GridError, "no latitude or longitude")
def dataset_without_a_grid(here):
    grid_of(xr.Dataset({"x": ("i", [1, 2])}))


@case(errors.GridError, "no target point lies within the source grid")
def grids_apart(here):
    from weathermill.fields.weight_making import make_weights

    box = {"latitude": [0, 20], "longitude": [0, 20], "step": 5}
    far = {"latitude": [40, 60], "longitude": [100, 120], "step": 5}
    make_weights(named_grid(box), named_grid(far), "bilinear")


@case(errors.GridError, "fails its gate", "overshoot")
def threshold_exceeded(here):
    from weathermill.fields.regrid_page import require_thresholds

    measures = {"overshoot": 0.4, "missing_area": [0.0, 0.0]}
    report = {"variables": {"temperature": measures}, "overshoot": 0.4}
    require_thresholds(report, {"overshoot": 0.1})


@case(errors.RegridWeightsError, "another source grid", "(6, 12)")
def weights_of_another_grid(here):
    from weathermill.fields.regridding import apply_weights
    from weathermill.fields.weight_making import make_weights

    fields = canonicalise([source()], variables=["temperature"])
    weights = make_weights(named_grid("8x16"), named_grid("4x8"), "conservative")
    apply_weights(fields, weights)


@case(errors.RegridWeightsError, "cannot be read", where="weights.nc")
def damaged_weights(here):
    from weathermill.datasets import RegridWeightsDataset

    (here.path / "weights.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    RegridWeightsDataset(filepath=str(here.path / "weights.nc")).load()


# statistics and splits


def training_array(values):
    times = np.datetime64("2020-01-01", "ns") + np.arange(len(values)) * np.timedelta64(6, "h")
    coords = {"time": times, "channel": ["temperature_500"], "role": ("channel", ["prognostic"])}
    return xr.DataArray(values[:, None], dims=("time", "channel", "latitude", "longitude"), coords=coords)


@case(errors.ConstantChannelError, "temperature_500", "always 7")
def constant_channel(here):
    from weathermill.fields.statistics import compute_statistics

    compute_statistics(training_array(np.full((5, 3, 4), 7, np.float32)), np.ones(3), [(0, 5)], 21600)


@case(errors.SplitError, "'validation'", "'test'", "overlap")
def overlapping_periods(here):
    from weathermill.tensors.splits import Period, split_indices

    periods = {
        "train": Period("1970-01-01", "1970-01-03"),
        "validation": Period("1970-01-03", "1970-01-06"),
        "test": Period("1970-01-05", None),
    }
    split_indices(np.arange(40) * 21600, periods)


@case(errors.SplitError, "'1970-13-01'", "date")
def no_such_date(here):
    from weathermill.tensors.splits import Period, split_indices

    split_indices(np.arange(40) * 21600, {"train": Period("1970-13-01", None)})


@case(errors.SplitError, "test period", "splits")
def short_test_period(here):
    from weathermill.pipelines.evaluate.forecasting import lead_steps

    lead_steps(here.store(splits={"train": [(0, 14)], "validation": [(14, 23)], "test": [(23, 24)]}), 24.0)


# stores


@case(errors.StoreError, "does not exist yet", "kedro run --pipelines=evaluate", where="scores.nc")
def store_that_is_not_made_yet(here):
    from weathermill.datasets import NetCDFDataset

    NetCDFDataset(filepath=str(here.path / "scores.nc"), load_args={"made_by": "evaluate"}).load()


@case(errors.StoreError, "was not finished", "goes on where it was", where="store")
def interrupted_store(here):
    writer = TensorWriter(here.path / "store", **described())
    writer.write(0, np.zeros((8, 2, 8, 16), np.float32))
    TensorStore(here.path / "store")


@case(errors.StoreError, "manifest", "damaged", where="manifest.json")
def damaged_manifest(here):
    store = here.store()
    flip(store.path / "manifest.json", 40)
    TensorStore(store.path)


@case(errors.StoreError, "00001.safetensors", "missing", where="store")
def missing_shard(here):
    store = here.store()
    (store.path / "shards" / "00001.safetensors").unlink()
    TensorStore(store.path)


@case(errors.StoreError, "00001.safetensors", "truncated", where="store")
def truncated_shard(here):
    store = here.store()
    path = store.path / "shards" / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    TensorStore(store.path)


@case(errors.StoreError, "SHA-256", "00001.safetensors", where="store")
def flipped_bit(here):
    store = here.store()
    flip(store.path / "shards" / "00001.safetensors")
    TensorStore(store.path, verify="checksums")


@case(errors.StoreError, "another shard", "00000.safetensors", where="store")
def swapped_shards(here):
    store = here.store()
    first, second = (store.path / "shards" / f"0000{k}.safetensors" for k in (0, 1))
    first.rename(here.path / "aside")
    second.rename(first)
    (here.path / "aside").rename(second)
    TensorStore(store.path).read(0)


@case(errors.StoreError, "no split 'tset'", "test", where="store")
def unknown_split(here):
    here.store().windows("tset", 1)


@case(errors.StoreError, "as a Zarr store", where="forecasts.zarr")
def forecasts_that_are_no_store(here):
    from weathermill.datasets import ForecastsDataset

    (here.path / "forecasts.zarr").mkdir()
    ForecastsDataset(filepath=str(here.path / "forecasts.zarr")).load()


@case(errors.UnwritableOutputError, "File exists", where="file")
def folder_below_a_file(here):
    from weathermill.datasets.local import staged

    (here.path / "file").write_text("")
    with staged(here.path / "file" / "output"):
        pass


@case(errors.UnwritableOutputError, "GiB of disk are free", where="store")
def disk_too_small_for_the_store(here):
    here.little_disk(10)
    here.store()


@case(errors.StoreLockedError, "in use by", "locking.busy=wait", where="store")
def locked_store(here):
    from weathermill.incremental.locks import StoreLocks, lock_path

    store = here.path / "store"
    with lock_path(store).open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        StoreLocks(wait=False).acquire([store], [])


@case(errors.DamagedStoreError, "fields.txt is truncated", "force=ingest", "delete", where="fields.txt")
def output_changed_since_it_was_written(here):
    from weathermill.datasets.local import require_intact
    from weathermill.incremental.records import Record, files_of, write_record

    path = here.path / "fields.txt"
    path.write_text("as it was")
    write_record(path, Record("f", "ingest", 0.0, 0.0, 9, files=files_of(path)))
    path.write_text("as")
    require_intact(path)


# models and training


@case(errors.CheckpointError, "All 1 checkpoints are damaged", "train anew", where="checkpoints")
def damaged_checkpoints(here):
    from weathermill.training.checkpoint import CheckpointManager

    manager = CheckpointManager(here.path / "checkpoints")
    manager.save({"k": 1}, epoch=1, step=10)
    flip(manager.all()[0].path / "manifest.json", 3)
    logging.disable(logging.WARNING)
    try:
        manager.latest()
    finally:
        logging.disable(logging.NOTSET)


@case(errors.CheckpointError, "another training", "batch_size: 4 then, 2 now", "`train.resume=false`")
def checkpoint_of_another_training(here):
    store = here.store()
    train_again(here, store)
    train_again(here, store, batch_size=2, resume=True)


@case(errors.CheckpointError, "state.json cannot be read", where="000000-step-10")
def checkpoint_without_a_file(here):
    from weathermill.training.checkpoint import CheckpointManager

    manager = CheckpointManager(here.path / "checkpoints")
    manager.save({"k": 1}, epoch=1, step=10)
    (checkpoint,) = manager.all()
    (checkpoint.path / "state.json").unlink()
    checkpoint.load()


@case(errors.ModelError, "'transformer'", "unet")
def unknown_architecture(here):
    from weathermill.models.forecaster import Forecaster
    from weathermill.models.registry import ModelConfig

    Forecaster.from_store(here.store(), ModelConfig(name="transformer"))


@case(errors.ModelError, "too small", "depth")
def network_too_deep_for_the_grid(here):
    from weathermill.models.forecaster import Forecaster
    from weathermill.models.registry import ModelConfig

    Forecaster.from_store(here.store(), ModelConfig(base_channels=2, depth=5))


@case(errors.ModelError, "Static fields have shape (1, 4, 16)")
def static_field_of_another_grid(here):
    forecaster(static=np.ones((1, 4, 16), np.float32))


@case(errors.ModelError, "do not match the checksum", where="model.safetensors")
def damaged_model(here):
    from weathermill.models.forecaster import Forecaster

    forecaster().save(here.path / "model")
    flip(here.path / "model" / "model.safetensors")
    Forecaster.load(here.path / "model")


@case(errors.ModelError, "cannot be read", where="model")
def model_with_a_pickle_inside(here):
    import pickle

    from weathermill.models.forecaster import Forecaster

    (here.path / "model").mkdir()
    for name in ("model.safetensors", "model.json"):
        (here.path / "model" / name).write_bytes(pickle.dumps({"weights": 1}))
    Forecaster.load(here.path / "model")


@case(errors.ModelError, "takes (batch, 2, 8, 16)")
def state_of_another_grid(here):
    import torch

    forecaster()(torch.zeros(1, 2, 8, 8))


@case(errors.ModelError, "the store lacks orography", "kedro run --pipelines=train,evaluate")
def model_of_other_channels(here):
    from weathermill.pipelines.evaluate.fitting import require_fitting

    given = {"mean": np.ones(2), "std": np.ones(2), "tendency_std": np.ones(2)}
    require_fitting(here.store(channels=channels(static=False), static=None, **given), forecaster())


@case(errors.NonFiniteError, "loss of step", "learning rate")
def loss_that_explodes(here):
    store = here.store(values=np.full((24, 2, 8, 16), 1e30, np.float32) * np.arange(24)[:, None, None, None])
    train_again(here, store, epochs=2)


@case(errors.TrainingInterruptedError, "asked to stop", "train.resume=true", where="checkpoints")
def training_that_is_stopped(here):
    train_again(here, here.store(), epochs=3, stop_requested=lambda: True)


@case(errors.ResourceError, "GiB", "mapped")
def split_that_does_not_fit_memory(here):
    from weathermill.training import feed

    here.patch.setattr(feed, "available_host_memory", lambda: 1000)
    feed.make_feed(here.store(), "train", 1, 4, "cpu", tier="pinned")


@case(errors.ResourceError, "will write about 10.0 MiB", "disk_check=false")
def disk_too_small_for_the_run(here):
    from weathermill.incremental.resources import require_disk

    here.little_disk(2**20)
    require_disk({here.path / "fields.zarr": 10 * 2**20})


# verification and reproduction


def accumulator(**changes):
    from weathermill.verification.scores import ScoreAccumulator

    given = {"latitude": np.linspace(80, -80, 4), "longitude": np.arange(8) * 45.0, "units": ["K"]}
    return ScoreAccumulator(["temperature_500"], [6, 12], np.ones(4), **{**given, **changes})


@case(errors.VerificationError, "no forecast was scored", "update")
def nothing_scored(here):
    accumulator().result()


@case(errors.VerificationError, "2 units were given for 1 channels")
def too_many_units(here):
    accumulator(units=["K", "m"])


@case(errors.VerificationError, "forecast", "(1, 3, 1, 4, 8)", "2 lead times")
def forecast_of_another_shape(here):
    times = np.array(["2020-01-01"], "datetime64[ns]")
    truth = np.zeros((1, 2, 1, 4, 8), np.float32)
    accumulator().update(np.zeros((1, 3, 1, 4, 8), np.float32), truth, None, times)


@case(errors.TrackingError, "'aaa'", "beginning", where="mlflow.db")
def unknown_run(here):
    import mlflow

    from weathermill.tracking.run_ids import find_run

    mlflow.set_tracking_uri(f"sqlite:///{here.path}/mlflow.db")
    find_run("aaa")


@case(errors.ReproductionError, "no record", "weathermill status", where="run ")
def run_that_no_pipeline_made(here):
    import mlflow

    from weathermill.tracking.reproduction import look_up
    from weathermill.tracking.settings import TrackingSettings

    settings = TrackingSettings(tracking_uri=f"sqlite:///{here.path}/mlflow.db")
    mlflow.set_tracking_uri(settings.tracking_uri)
    run = mlflow.MlflowClient().create_run("0", run_name="by hand")
    look_up(run.info.run_id[:9], settings, here.path)


@case(errors.ReproductionError, "the code", "train", "git checkout c0ffee", where="run 0000")
def code_that_has_changed(here):
    from weathermill.tracking.reproduction import Reproduction

    Reproduction("0000", {}, "c0ffee", False, (), ("train",), ()).require_unchanged()


# further meanings


@case(errors.CoordinateError, "t", "dimensions", where="source")
def latitude_of_two_dimensions_alone(here):
    dataset = source()
    latitude = dataset["latitude"].values[:, None] * np.ones(12)
    dataset = dataset.drop_vars("latitude").assign_coords(
        latitude=(("latitude", "longitude"), latitude, {"units": "degrees_north"})
    )
    canonicalise([dataset], variables=["temperature"])


@case(errors.EmptySelectionError, "850 hPa", "overlaps the times")
def level_at_other_times_only(here):
    first = source(levels=(500.0, 850.0))
    second = source(levels=(500.0,), start="2021-01-01")
    canonicalise([first, second], variables=["temperature"], levels=[500, 850], start="2021-01-01")


@case(errors.GridError, "one longitude alone")
def one_meridian(here):
    from weathermill.fields.geometry import longitude_corners

    longitude_corners(np.array([10.0]))


@case(errors.GridError, "two latitudes and two longitudes")
def box_of_three_latitudes(here):
    named_grid({"latitude": [0, 10, 20], "longitude": [0, 10], "step": 5})


@case(errors.GridError, "one-dimensional latitude and longitude")
def store_on_a_curvilinear_grid(here):
    here.store(latitude=np.ones((8, 16)))


@case(errors.ModelError, "format", "this version reads", where="model")
def model_of_another_format(here):
    from weathermill.models.forecaster import Forecaster
    from weathermill.tensors.files import sealed_json, unseal_json

    forecaster().save(here.path / "model")
    path = here.path / "model" / "model.json"
    path.write_bytes(sealed_json({**unseal_json(path.read_bytes()), "format": "another"}))
    Forecaster.load(here.path / "model")


@case(errors.ModelError, "mean has shape (1,)", "3 channels")
def statistics_of_too_few_channels(here):
    forecaster(mean=np.ones(1))


@case(errors.ParameterError, "forecast.initial_times is null", "every_hours")
def no_initial_times(here):
    from weathermill.parameters import ForecastParameters, RegridParameters
    from weathermill.pipelines.forecast.nodes import make_forecasts

    make_forecasts(None, None, RegridParameters(), ForecastParameters(), None, None)


@case(errors.ParameterError, "cannot have -1 steps")
def window_of_negative_length(here):
    from weathermill.training.feed import make_feed

    make_feed(here.store(), "train", -1)


@case(errors.ReproductionError, "sources have changed", "raw_fields", where="run 0000")
def sources_that_have_changed(here):
    from weathermill.tracking.reproduction import Reproduction

    Reproduction("0000", {}, "c0ffee", False, ("raw_fields",), (), ()).require_unchanged()


@case(errors.ResourceError, "train took", "GiB of memory last time", "resources.memory_gib")
def stage_that_took_too_much_last_time(here):
    from kedro.io import DataCatalog
    from kedro.pipeline.node import Node

    from weathermill.datasets import NetCDFDataset
    from weathermill.incremental.hook import IncrementalHook
    from weathermill.incremental.plan import NodePlan
    from weathermill.incremental.records import Record, write_record

    path = here.path / "model.nc"
    write_record(path, Record("f", "train", 0.0, 0.0, 1, peak_memory=2**33))
    hook = IncrementalHook()
    hook._catalog = DataCatalog({"model": NetCDFDataset(filepath=str(path))})
    hook.plan = [NodePlan(Node(lambda: 1, None, "model", name="train"), True, "forced", {}, {})]
    hook._require_memory(4.0)


@case(errors.SplitError, "no times to split")
def nothing_to_split(here):
    from weathermill.tensors.splits import Period, split_indices

    split_indices(np.array([], np.int64), {"train": Period(None, None)})


@case(errors.SplitError, "Times do not increase")
def times_out_of_order(here):
    from weathermill.tensors.splits import Period, split_indices

    split_indices(np.array([0, 2, 1]) * 21600, {"train": Period(None, None)})


@case(errors.StoreError, "times that increase")
def store_of_times_out_of_order(here):
    here.store(times=np.zeros(24, np.int64))


@case(errors.StoreError, "Static fields hold missing values")
def store_of_static_fields_with_holes(here):
    here.store(static=np.full((1, 8, 16), np.nan, np.float32))


@case(errors.StoreError, "version", "this version reads", where="manifest.json")
def store_of_another_version(here):
    from weathermill.tensors.files import sealed_json, unseal_json

    path = here.store().path / "manifest.json"
    path.write_bytes(sealed_json({**unseal_json(path.read_bytes()), "version": 99}))
    TensorStore(path.parent)


@case(errors.StoreError, "header cannot be read", where="00000.safetensors")
def shard_that_is_a_pickle(here):
    import pickle

    from weathermill.tensors.shards import read_header

    path = here.path / "00000.safetensors"
    path.write_bytes((40).to_bytes(8, "little") + pickle.dumps({"a": list(range(50))}))
    read_header(path)


@case(errors.StoreError, "too short for its header", where="00000.safetensors")
def empty_shard(here):
    from weathermill.tensors.shards import read_header

    (here.path / "00000.safetensors").write_bytes(b"")
    read_header(here.path / "00000.safetensors")


@case(errors.TimeAxisError, "the time step is 6 h", "9 h")
def uneven_time_step(here):
    from weathermill.pipelines.splitting import time_step_seconds

    time_step_seconds(np.array([0, 6, 15]) * 3600)


@case(errors.TimeAxisError, "mix the calendars")
def times_of_two_calendars(here):
    from weathermill.verification.times import as_times

    as_times([cftime.DatetimeNoLeap(2000, 1, 1), cftime.Datetime360Day(2000, 1, 1)])


@case(errors.TimeAxisError, "not a time", "yesterday")
def text_that_is_no_time(here):
    from weathermill.verification.times import as_times

    as_times(["yesterday-ish"])


@case(errors.UnreadableSourceError, "members", where="a.zip")
def archive_of_too_many_members(here):
    from weathermill.fields import archives

    here.patch.setattr(archives, "_MAX_MEMBERS", 2)
    with zipfile.ZipFile(here.path / "a.zip", "w") as archive:
        for k in range(3):
            archive.writestr(f"{k}.nc", "x")
    open_sources(here.path / "a.zip")


@case(errors.VerificationError, "not unique")
def channel_scored_twice(here):
    from weathermill.verification.scores import ScoreAccumulator

    ScoreAccumulator(["a", "a"], [6], np.ones(4))


@case(errors.VerificationError, "distinct hours", "[6, 6]")
def lead_time_scored_twice(here):
    from weathermill.verification.scores import ScoreAccumulator

    ScoreAccumulator(["a"], [6, 6], np.ones(4))


@case(errors.VerificationError, "cannot be merged")
def accumulators_of_other_channels(here):
    from weathermill.verification.scores import ScoreAccumulator

    ScoreAccumulator(["a"], [6], np.ones(4)).merge(ScoreAccumulator(["b"], [6], np.ones(4)))


@case(errors.VerificationError, "area weights have shape (4,)")
def area_weights_of_another_grid(here):
    times = np.array(["2020-01-01"], "datetime64[ns]")
    fields = np.zeros((1, 2, 1, 5, 8), np.float32)
    accumulator().update(fields, fields, None, times)


@case(errors.DamagedStoreError, "cannot be decoded", "weathermill verify")
def flipped_bit_in_a_store_of_fields(here):
    from weathermill.datasets import ZarrFieldsDataset
    from weathermill.faults import known_error

    dataset = ZarrFieldsDataset(filepath=str(here.path / "fields.zarr"))
    dataset.save(canonicalise([source()], variables=["temperature"]))
    (shard,) = [p for p in (here.path / "fields.zarr" / "temperature" / "c").rglob("*") if p.is_file()]
    flip(shard, shard.stat().st_size // 2)
    try:
        dataset.load().load()
    except Exception as error:
        raise known_error(error) from error


@pytest.mark.parametrize(("error", "names", "where", "function"), CASES)
def test_the_error_says_what_where_and_what_to_do(
    tmp_path, monkeypatch, request, error, names, where, function
):
    if "run" in function.__name__.split("_"):
        shutil.copy(request.getfixturevalue("made_database"), tmp_path / "mlflow.db")
    with pytest.raises(Exception) as caught:
        function(Here(tmp_path, monkeypatch))
    # Kedro wraps what datasets raise.
    found = plain_error(caught.value)
    assert found is not None, caught.value
    text = str(found)
    assert type(found) is error, text
    assert text.startswith(f"{error.code} ") and found.what.strip() and f"\n  -> {found.remedy}" in text
    assert len(found.remedy.split()) >= 3, text
    for name in names:
        assert name in text
    assert where in (found.where or ""), text


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_has_a_case(cls):
    assert any(case.values[0] is cls for case in CASES), f"write a case that ends in {cls.__name__}"
