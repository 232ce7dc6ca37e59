"""`weathermill inspect` and `kedro run` come to one verdict on every source, however odd.

The run is that of the stages up to the tensors and the building of the network, as library calls, with the parameters
that the inspection prints.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline.node import Node

from weathermill.datasets import RawFieldsDataset
from weathermill.errors import WeathermillError
from weathermill.fields.looking import look_at
from weathermill.fields.opening import open_sources
from weathermill.incremental.needs import needs_of
from weathermill.incremental.plan import NodePlan
from weathermill.parameters import validate_parameters
from weathermill.pipelines.ingest.nodes import ingest_fields, inspect_sources
from weathermill.pipelines.normalise.nodes import compute_statistics, normalise_fields
from weathermill.pipelines.proposal import check_proposal
from weathermill.pipelines.regrid.nodes import choose_target_grid, make_regrid_weights, regrid_fields
from weathermill.pipelines.tensors.nodes import lay_out_tensors

SMALL = {"model": {"base_channels": 4, "depth": 3}, "train": {"device": "cpu"}}
STAGES = {
    "inspect": "inspection_findings",
    "ingest": "fields",
    "choose_target_grid": "target_grid",
    "regrid": "regridded",
    "compute_statistics": "statistics",
    "write_tensors": "tensors",
    "train": "model",
    "forecast": "forecast",
}


def source(steps=20, rows=9, columns=16, levels=(500.0, 850.0), first="2020-01-01", hours=6):
    """Temperature on levels and 2 m temperature, of noise."""
    rng = np.random.default_rng(1)
    shape = (steps, len(levels), rows, columns)
    latitude = np.linspace(80, -80, rows) if rows != 1 else np.array([10.0])
    return xr.Dataset(
        {
            "t": (("time", "level", "latitude", "longitude"), 260 + rng.normal(size=shape), {"units": "K"}),
            "t2m": (
                ("time", "latitude", "longitude"),
                285 + rng.normal(size=(steps, rows, columns)),
                {"units": "K"},
            ),
        },
        coords={
            "time": np.datetime64(first, "ns") + np.arange(steps) * np.timedelta64(hours, "h"),
            "level": ("level", np.array(levels), {"units": "hPa"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": (
                "longitude",
                np.arange(columns) * 360.0 / max(1, columns),
                {"units": "degrees_east"},
            ),
        },
    ).astype(np.float32)


def changed(name, index, value):
    dataset = source()
    dataset[name][index] = value
    return dataset


def curvilinear():
    dataset = source()[["t2m"]].rename(latitude="y", longitude="x").drop_vars(["y", "x"])
    y, x = np.meshgrid(np.linspace(60, 40, 9), np.linspace(0, 20, 16), indexing="ij")
    return dataset.assign_coords(
        lat=(("y", "x"), y + 0.1 * x, {"units": "degrees_north", "standard_name": "latitude"}),
        lon=(("y", "x"), x - 0.1 * y, {"units": "degrees_east", "standard_name": "longitude"}),
    )


def masked():
    dataset = source()[["t2m"]].rename(t2m="sst")
    dataset["sst"][:, :3, :5] = np.nan
    return dataset


def with_units(name, units):
    dataset = source()
    dataset[name].attrs["units"] = units
    return dataset


def two_axes():
    late = source(first="2030-01-01")[["t2m"]]
    return [source()[["t"]], late]


SOURCES = {
    "plain": source,
    "two steps": lambda: source(steps=2),
    "one step": lambda: source(steps=1),
    "six steps": lambda: source(steps=6),
    "no step": lambda: source(steps=0),
    "scalar time": lambda: source().isel(time=0),
    "no time": lambda: source().isel(time=0, drop=True),
    "static fields only": lambda: source()[["t2m"]].isel(time=0, drop=True).rename(t2m="lsm"),
    "a static field and others": lambda: source().assign(
        lsm=(("latitude", "longitude"), np.random.default_rng(0).random((9, 16)).astype("f4"), {"units": "1"})
    ),
    "no latitude": lambda: source(rows=0),
    "one latitude": lambda: source(rows=1),
    "one longitude": lambda: source(columns=1),
    "a few points": lambda: source(rows=3, columns=3),
    "a narrow strip": lambda: source(rows=3, columns=60),
    "small map": lambda: source(rows=4, columns=8),
    "no gridded variable": lambda: xr.Dataset(
        {"t2m": ("time", np.arange(4.0))}, coords={"time": np.arange(4)}
    ),
    "nothing": xr.Dataset,
    "unknown variables only": lambda: source()[["t2m"]].rename(t2m="thing"),
    "unknown beside known": lambda: source().rename(t2m="thing"),
    "no units": lambda: with_units("t", ""),
    "wrong units": lambda: with_units("t", "m s-1"),
    "nonsense units": lambda: with_units("t", "furlongs"),
    "degrees Celsius said, kelvin meant": lambda: with_units("t2m", "degC"),
    "gaps": lambda: changed("t", (3, 0, 1, 2), np.nan),
    "a step without values": lambda: changed("t", 3, np.nan),
    "no values": lambda: changed("t2m", slice(None), np.nan),
    "an infinity": lambda: changed("t", (0, 0, 1, 2), np.inf),
    "a fill value": lambda: changed("t2m", (0, 1, 2), -9999.0),
    "constant": lambda: changed("t2m", slice(None), 280.0),
    "still": lambda: changed("t2m", slice(None), np.random.default_rng(0).random((9, 16)) + 280),
    "sea surface temperature": masked,
    "curvilinear": curvilinear,
    "points": lambda: source()[["t2m"]].stack(values=("latitude", "longitude")).reset_index("values"),
    "uneven steps": lambda: source().isel(time=[0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    "steps that do not divide": lambda: source().assign_coords(
        time=np.datetime64("2020-01-01", "ns")
        + np.array([0, 6, 12, 16, *range(22, 118, 6)]) * np.timedelta64(1, "h")
    ),
    "360-day calendar": lambda: source().assign_coords(
        time=xr.date_range("2000-02-25", periods=20, freq="6h", calendar="360_day", use_cftime=True)
    ),
    "model levels": lambda: source().assign_coords(
        level=("level", [1, 2], {"long_name": "model level number", "units": "1"})
    ),
    "levels without units": lambda: source().assign_coords(level=[500.0, 850.0]),
    "ensemble": lambda: source().expand_dims(number=[0, 1]),
    "lead times": lambda: source().expand_dims(step=np.array([6, 12]) * np.timedelta64(3600 * 10**9, "ns")),
    "the same times twice": lambda: [source(), source()],
    "two times in conflict": lambda: [source(), source() + 1],
    "no common time": two_axes,
    "other levels in another file": lambda: [
        source()[["t"]],
        source(levels=(200.0,))[["t"]].rename(t="q") / 1e5,
    ],
    "different grids": lambda: [source()[["t"]], source(rows=7)[["t2m"]]],
    "regional": lambda: source(columns=64).isel(longitude=slice(3, 20)),
    "longitudes to 180": lambda: source().assign_coords(longitude=np.arange(16) * 22.5 - 180),
    "daily": lambda: source(hours=24),
}


@pytest.fixture
def write(tmp_path):
    def make(datasets):
        datasets = datasets if isinstance(datasets, list) else [datasets]
        for i, dataset in enumerate(datasets):
            dataset.to_netcdf(tmp_path / f"f{i}.nc")
        return [str(path) for path in sorted(tmp_path.glob("f*.nc"))]

    return make


def run(paths, ingest):
    """Do what `kedro run` does up to the tensors and the network, with ``ingest`` parameters; raise what it refuses."""
    parameters = validate_parameters({**SMALL, "ingest": ingest})
    ingest, splits = parameters.ingest, parameters.splits
    catalog = DataCatalog(
        {"raw_fields": RawFieldsDataset(filepath=paths), **{n: MemoryDataset() for n in STAGES}}
    )
    plan = [NodePlan(Node(lambda: 1, None, made, name=n), True, "", {}, {}) for n, made in STAGES.items()]
    needs_of(plan, catalog, parameters)
    raw = open_sources(paths)
    report = inspect_sources(raw, ingest, splits)
    fields = ingest_fields(raw, report, ingest, splits).load()
    target = choose_target_grid(fields, parameters.regrid)
    weights = make_regrid_weights(fields, target, None, parameters.regrid)
    regridded = regrid_fields(fields, weights, target, parameters.regrid)
    statistics = compute_statistics(regridded, ingest, splits)
    normalised = normalise_fields(regridded, statistics, ingest)
    content = lay_out_tensors(normalised, regridded, statistics, ingest, splits, parameters.tensors)
    assert content.splits and np.isfinite(content.std).all()


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_proposed_runs_and_what_a_run_refuses_is_said_beforehand(name, write):
    paths = write(SOURCES[name]())
    look = look_at(
        paths,
        check=lambda opened, proposed, steps, found: check_proposal(
            opened, proposed, steps, found, base=SMALL
        ),
        sample_steps=20,
    )
    text = look.to_text()
    printed = yaml.safe_load(text[text.rindex("\ningest:") :])["ingest"]
    assert str(printed) == str(look.proposed).replace("'0'", "0")
    try:
        run(paths, printed)
        refused = None
    except WeathermillError as error:
        refused = error
    assert bool(look.errors) == (refused is not None), f"{look.errors} against {refused}"
    assert ("nothing is wrong with it" in text) <= (not look.errors)
    assert all(finding.message and finding.remedy for finding in look.errors)
