"""Disk space is estimated from axes and parameters, for every kind of output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline.node import Node

from weathermill.datasets import CheckpointsDataset, NetCDFDataset
from weathermill.errors import ModelError, ParameterError
from weathermill.fields.grids import named_grid
from weathermill.fields.opening import OpenedSources
from weathermill.fields.weight_making import make_weights
from weathermill.incremental.estimates import estimate_disk, network_bytes, reckon
from weathermill.incremental.needs import needs_of
from weathermill.incremental.plan import NodePlan
from weathermill.incremental.records import Record, write_record
from weathermill.incremental.shapes import Shapes, shapes_of
from weathermill.parameters import validate_parameters
from weathermill.pipelines.train.configuration import model_config
from weathermill.training.checkpoint import CheckpointManager
from weathermill.training.ledger import blank_forecaster

SHAPES = Shapes(400, 2, 5, 1, 1, (32, 64), (31, 60))


def parameters(**changes):
    ingest = {"variables": ["temperature", "geopotential"], "surface_variables": ["2m_temperature"]}
    return validate_parameters({"ingest": ingest, **changes})


def source(name="t", n_time=40, levels=3, start="2000-01-01"):
    times = np.datetime64(start, "ns") + np.arange(n_time) * np.timedelta64(6, "h")
    pressures = [500.0, 850.0, 925.0][:levels]
    sizes = {"valid_time": n_time, "isobaricInhPa": levels, "latitude": 8, "longitude": 16}
    dims = tuple(sizes) if levels else tuple(d for d in sizes if d != "isobaricInhPa")
    return xr.Dataset(
        {name: (dims, np.zeros([sizes[d] for d in dims], np.float32), {"units": "K"})},
        coords={
            "valid_time": times,
            "latitude": ("latitude", np.linspace(78.75, -78.75, 8), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
            **({"isobaricInhPa": ("isobaricInhPa", pressures, {"units": "hPa"})} if levels else {}),
        },
    )


def test_shapes_are_those_of_the_sources_that_are_used():
    sources = [
        source(),
        source(start="2000-01-11"),
        source("t2m", n_time=80, levels=0),
        source("sst", n_time=500, levels=0),
    ]
    opened = OpenedSources(sources, [str(i) for i in range(4)], [])
    catalog = DataCatalog({"raw_fields": MemoryDataset(opened, copy_mode="assign")})
    chosen = parameters(
        ingest={
            "variables": ["temperature"],
            "surface_variables": ["2m_temperature"],
            "forcing_variables": ["toa_incident_solar_radiation"],
            "static_variables": ["land_sea_mask"],
            "start": "2000-01-02",
        },
        regrid={"target": "5x10"},
    )
    assert shapes_of(catalog, chosen, {"fields"}) == Shapes(76, 3, 4, 1, 1, (8, 16), (5, 10), 6.0)
    sizes = reckon(shapes_of(catalog, chosen, {"fields"}), chosen)
    assert sizes["fields"] == 76 * 5 * 8 * 16 * 4 + 8 * 16 * 4
    assert sizes["regridded"] == 76 * 5 * 50 * 4 + 50 * 4
    assert sizes["tensors"] == 76 * 5 * 50 * 2 + 50 * 4


def test_nothing_is_claimed_where_nothing_is_known():
    assert shapes_of(DataCatalog({}), parameters(), set()) is None
    broken = DataCatalog({"raw_fields": MemoryDataset("no sources", copy_mode="assign")})
    assert shapes_of(broken, parameters(), set()) is None


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest_s2d", "patch"])
@pytest.mark.parametrize("names", [("32x64", "31x60_poles"), ("19x36_poles", "8x16"), ("8x16", "20x33")])
def test_files_of_weights_are_bounded(tmp_path, method, names):
    source, target = (named_grid(name) for name in names)
    make_weights(source, target, method).to_dataset().to_netcdf(tmp_path / "weights.nc")
    sizes = [(grid.sizes["latitude"], grid.sizes["longitude"]) for grid in (source, target)]
    shapes = Shapes(10, 1, 1, 0, 0, *sizes)
    size = (tmp_path / "weights.nc").stat().st_size
    bound = reckon(shapes, parameters(regrid={"method": method}))["regrid_weights"]
    # The file has some tens of KiB of names and attributes.
    assert size < bound + 2**17
    assert method == "patch" or bound < 4 * size


@pytest.mark.parametrize("average", [None, 0.99])
def test_checkpoints_hold_weights_moments_and_the_average(tmp_path, average):
    chosen = parameters(
        model={"base_channels": 8, "depth": 2}, train={"keep_checkpoints": 2, "step": {"ema_decay": average}}
    )
    network = blank_forecaster(model_config(chosen.model), 5, (31, 60), n_forcing=1, n_static=1)
    weights, state = network_bytes(SHAPES, chosen)
    assert weights == sum(v.numel() * v.element_size() for v in network.state_dict().values())
    optimiser = torch.optim.AdamW(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()
    optimiser.step()
    held = {"model": network.state_dict(), "optimiser": optimiser.state_dict()["state"]}
    if average:
        held["ema"] = [p.detach().clone() for p in network.parameters()]
    manager = CheckpointManager(tmp_path, keep=2)
    for step in range(4):
        manager.save(held, epoch=step, step=step, metric=float(step))
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    bound = reckon(SHAPES, chosen)["checkpoints"]
    assert bound == 4 * state
    assert 0.7 * bound * 3 / 4 < size < bound + 2**17


def test_more_forecasts_need_more_space():
    few = reckon(SHAPES, parameters(forecast={"initial_times": ["2000-01-01", "2000-01-02"]}))
    many = reckon(
        SHAPES,
        parameters(
            forecast={"initial_times": {"start": "2000-01-01", "stop": "2000-02-01", "every_hours": 24}}
        ),
    )
    assert few["forecasts"] == 2 * few["forecast"] == 2 * 40 * 5 * 31 * 60 * 4
    assert many["forecasts"] == 31 * few["forecast"]


def test_what_a_run_made_is_no_more_than_was_estimated(tmp_path):
    """Checkpoints and copies in MLflow count, and outputs of unknown size count as what they were."""
    path = tmp_path / "model_output" / "stability.nc"
    path.parent.mkdir()
    path.write_bytes(bytes(1000))
    write_record(path, Record("f", "follow_stability", 0.0, 0.0, 3 * 2**20))
    catalog = DataCatalog(
        {
            "stability": NetCDFDataset(filepath=str(path)),
            "checkpoints": CheckpointsDataset(filepath=str(tmp_path / "checkpoints")),
            "parameters": MemoryDataset({}),
        }
    )
    train = Node(lambda checkpoints: None, "checkpoints", "stability", name="train")
    plan = [NodePlan(train, True, "forced", {}, {})]
    needed = estimate_disk(plan, catalog, parameters(), None)
    assert needed[path] == 2 * (3 * 2**20 + 2**17)
    assert needed[tmp_path / "checkpoints"] == 2**17


def test_dates_of_other_calendars_are_reckoned_with():
    def forecasts(start: str, stop: str) -> int:
        times = {"start": start, "stop": stop, "every_hours": 24}
        return reckon(SHAPES, parameters(forecast={"initial_times": times}))["forecasts"]

    assert forecasts("2001-01-30", "2001-02-30") == pytest.approx(
        forecasts("2001-01-01", "2001-01-31"), rel=0.05
    )


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({"boundary": "sphere"}, {}, "the grid does not cover the globe: 20 longitudes from 0 to 38"),
        ({"name": "sfno"}, {}, "no boundary but the sphere"),
        ({"zonal_filter": 8}, {}, "zonal filter"),
        ({"conserve_mean": ["2m_temperature"]}, {}, "global mean"),
        ({}, {"spectral_weight": 0.5}, "spectral term"),
    ],
)
def test_a_network_that_does_not_suit_the_grid_is_refused_before_anything_is_read(model, training, message):
    catalog = DataCatalog(
        {"raw_fields": MemoryDataset(OpenedSources([source()], ["a.nc"], []), copy_mode="assign")}
    )
    region = {"target": {"latitude": [60, 30], "longitude": [0, 38], "step": 2}}
    train = Node(lambda tensors, checkpoints: None, ["tensors", "checkpoints"], "model", name="train")
    ingest = Node(lambda raw: None, "raw_fields", "fields", name="ingest")
    plan = [NodePlan(ingest, True, "forced", {}, {}), NodePlan(train, True, "forced", {}, {})]
    chosen = {
        "ingest": {"variables": ["temperature"], "surface_variables": ["2m_temperature"]},
        "model": model,
        "train": training,
    }
    with pytest.raises((ModelError, ParameterError), match=message) as refused:
        needs_of(plan, catalog, parameters(**chosen, regrid=region))
    assert refused.value.remedy
    # The source itself covers the globe, and without a training nothing is asked of the grid.
    needs_of(plan, catalog, parameters(**chosen))
    needs_of(plan[:1], catalog, parameters(**chosen, regrid=region))
