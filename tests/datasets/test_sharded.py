"""Ingesting into a sharded store: killed and resumed, appended to, from replaced sources, by several workers."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

from weathermill.datasets import ZarrFieldsDataset, sharded
from weathermill.fields.inspection import InspectionReport
from weathermill.fields.layout import GuardedReader
from weathermill.fields.opening import open_sources
from weathermill.fields.origins import Trace, attach, trace_of
from weathermill.parameters import IngestParameters, RegridParameters, SplitParameters
from weathermill.pipelines.ingest import nodes
from weathermill.pipelines.regrid import nodes as regridding

SMALL = {"chunk_bytes": 2400, "shard_bytes": 7000}


def month(n: int, steps: int = 10, **changes) -> xr.Dataset:
    """Ten six-hourly steps, the n-th part of one series, with values that tell their place."""
    times = np.datetime64("2020-01-01", "ns") + (10 * n + np.arange(steps)) * np.timedelta64(6, "h")
    rng = np.random.default_rng(n)
    shape = (steps, 2, 9, 16)
    source = xr.Dataset(
        {
            "t": (
                ("time", "level", "latitude", "longitude"),
                (250 + rng.normal(size=shape)).astype(np.float32),
                {"units": "K"},
            ),
            "t2m": (
                ("time", "latitude", "longitude"),
                (280 + rng.normal(size=(steps, 9, 16))).astype(np.float32),
                {"units": "K"},
            ),
        },
        coords={
            "time": times,
            "level": ("level", [500.0, 850.0], {"units": "hPa"}),
            "latitude": ("latitude", np.linspace(90, -90, 9), {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(16) * 22.5, {"units": "degrees_east"}),
        },
    )
    return source.assign(changes)


@pytest.fixture
def files(tmp_path):
    """Three files of one series."""
    for n in range(3):
        month(n).to_netcdf(tmp_path / f"m{n}.nc")
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """Collect what is read from the sources: (file and variable, time steps)."""
    seen = []
    original = GuardedReader.__getitem__

    def counted(self, index):
        seen.append((self.label, self.variable[index].shape[0]))
        return original(self, index)

    monkeypatch.setattr(GuardedReader, "__getitem__", counted)
    return seen


def rewrite(path, source):
    """Replace a file that is open here."""
    source.to_netcdf(path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def prepare(paths, *, block_bytes=2400, **parameters):
    """Return traced fields whose blocks are two steps, so that what is read can be counted."""
    asked = IngestParameters(
        **{"variables": ["temperature"], "surface_variables": ["2m_temperature"]} | parameters
    )
    raw = open_sources(paths)
    splits = SplitParameters()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nodes, "canonicalise", functools.partial(nodes.canonicalise, block_bytes=block_bytes))
        return nodes.ingest_fields(raw, InspectionReport(), asked, splits)


def ingest(paths, target, *, reads=None, save_args=SMALL, **parameters):
    fields = prepare(paths, **parameters)
    if reads is not None:
        reads.clear()
    dataset = ZarrFieldsDataset(filepath=str(target), save_args=dict(save_args))
    dataset.save(fields)
    return dataset


def contents(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def shards(store: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of modification of every shard."""
    found = [p for p in store.rglob("c/*/*/*") if p.is_file()] + [
        p for p in store.rglob("c/*/*/*/*") if p.is_file()
    ]
    return {p.relative_to(store).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def steps_read(reads, variable="t2m") -> dict[str, int]:
    counts: dict[str, int] = {}
    for label, n in reads:
        if label.endswith(f":{variable}"):
            counts[label.split(":")[0]] = counts.get(label.split(":")[0], 0) + n
    return counts


_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_sharded as t
from weathermill.fields.layout import GuardedReader
original = GuardedReader.__getitem__
armed = False
def deadly(self, index):
    if armed and "m2.nc" in self.label:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, index)
GuardedReader.__getitem__ = deadly
from pathlib import Path
folder = Path(sys.argv[2])
fields = t.prepare(sorted(folder.glob("m*.nc")))
armed = True
t.ZarrFieldsDataset(filepath=str(folder / "out" / "fields.zarr"), save_args=t.SMALL).save(fields)
"""


def test_a_killed_ingest_goes_on_where_it_was(files, reads):
    script = [sys.executable, "-W", "ignore", "-c", _KILLED, str(Path(__file__).parent), str(files)]
    killed = subprocess.run(script, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    target = files / "out" / "fields.zarr"
    partial = files / "out" / "fields.zarr.partial"
    assert not target.exists()
    blocks = [json.loads(line)["block"] for line in (partial / "journal").read_text().splitlines()]
    assert blocks == [0, 1, 2, 3, 4]
    written = shards(partial / "store")
    # What a dying process may leave: a shard without an entry, a temporary file, half a line.
    stray = partial / "store" / "temperature" / "c" / "5" / "0" / "0"
    stray.mkdir(parents=True)
    (stray / "0").write_bytes(b"half")
    (partial / "store" / "temperature" / "c" / "0.abc.partial").write_bytes(b"half")
    with (partial / "journal").open("a") as journal:
        journal.write('{"block": 5, "ke')

    ingest(sorted(files.glob("m*.nc")), target, reads=reads)
    assert steps_read(reads) == {"m2.nc": 10}
    kept = shards(target)
    assert len(written) == 10 and all(kept[name] == written[name] for name in written)
    assert sorted(p.name for p in (files / "out").iterdir()) == ["fields.zarr"]
    ingest(sorted(files.glob("m*.nc")), files / "whole.zarr")
    assert contents(target) == contents(files / "whole.zarr")


@pytest.mark.parametrize("change", ["parameters", "bytes", "source", "forced"])
def test_what_an_interrupted_ingest_left_is_kept_only_where_it_holds(files, reads, monkeypatch, change):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"

    def failing(self, index):
        if "m2.nc" in self.label:
            raise OSError("no such device")
        return np.asarray(self.variable[index].values)

    fields = prepare(paths)
    with monkeypatch.context() as patched:
        patched.setattr(GuardedReader, "__getitem__", failing)
        with pytest.raises(Exception, match="no such device"):
            ZarrFieldsDataset(filepath=str(target), save_args=SMALL).save(fields)
    store = files / "fields.zarr.partial" / "store"
    assert len(shards(store)) == 10
    parameters = {}
    if change == "parameters":
        parameters = {"allow_missing": ["temperature"]}
    elif change == "bytes":
        shard = store / "2m_temperature" / "c" / "1" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    elif change == "source":
        rewrite(paths[0], month(0, t2m=month(0)["t2m"].copy(data=month(0)["t2m"].values + 1)))
    fields = prepare(paths, **parameters)
    reads.clear()
    dataset = ZarrFieldsDataset(filepath=str(target), save_args=SMALL)
    if change == "forced":
        dataset.start_afresh()
    dataset.save(fields)
    expected = {
        "parameters": {"m0.nc": 10, "m1.nc": 10, "m2.nc": 10},
        "bytes": {"m0.nc": 4, "m2.nc": 10},
        # The third shard holds steps of the first two files.
        "source": {"m0.nc": 10, "m1.nc": 2, "m2.nc": 10},
        "forced": {"m0.nc": 10, "m1.nc": 10, "m2.nc": 10},
    }[change]
    assert steps_read(reads) == expected
    ingest(paths, files / "whole.zarr", **parameters)
    assert contents(target) == contents(files / "whole.zarr")


@pytest.mark.parametrize("how", ["files", "stop"])
def test_appended_months_leave_old_shards_alone(files, reads, how):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    if how == "files":
        ingest(paths[:1], target)
    else:
        ingest(paths, target, stop="2020-01-03T12:00")
    old = shards(target)
    dataset = ingest(paths, target, reads=reads)
    new = shards(target)
    # Ten steps fill two shards and half of a third: that one is written anew, its old half from the old store.
    assert len(old) == 6
    for name, identity in old.items():
        assert (new[name] == identity) == (name.split("/")[2] != "2"), name
    assert steps_read(reads) == {"m1.nc": 10, "m2.nc": 10}
    ingest(paths, files / "whole.zarr")
    assert contents(target) == contents(files / "whole.zarr")
    plain = xr.open_zarr(target)
    assert plain.sizes["time"] == 30
    xr.testing.assert_equal(plain.drop_attrs().compute(), dataset.load().drop_attrs().compute())
    # And nothing is read where everything stands.
    ingest(paths, target, reads=reads)
    assert reads == [] and shards(target) == new


def test_old_shards_that_are_damaged_are_read_from_the_sources(files, reads):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    ingest(paths[:2], target)
    shard = target / "temperature" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    ingest(paths, target, reads=reads)
    assert steps_read(reads) == {"m0.nc": 4, "m2.nc": 10}
    ingest(paths, files / "whole.zarr")
    assert contents(target) == contents(files / "whole.zarr")


def test_steps_whose_files_were_replaced_are_read_again(files, reads):
    """As when the Climate Data Store puts ERA5 (experiment version 1) in the place of ERA5T (5)."""
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    version = ("time", np.array(["0005"] * 10, dtype=object))
    rewrite(paths[1], month(1).assign_coords(expver=version))
    ingest(paths[:2], target)
    old = shards(target)
    final = month(1) + 0.5
    for name in final.data_vars:
        final[name].attrs["units"] = "K"
    rewrite(paths[1], final.assign_coords(expver=("time", np.array(["0001"] * 10, dtype=object))))
    dataset = ingest(paths, target, reads=reads)
    # The shard of steps 8 to 11 takes its first two from the old store.
    assert steps_read(reads) == {"m1.nc": 10, "m2.nc": 10}
    new = shards(target)
    assert {n.split("/")[2] for n in old if new[n] == old[n]} == {"0", "1"}
    ingest(paths, files / "whole.zarr")
    assert contents(target) == contents(files / "whole.zarr")
    got = dataset.load()["2m_temperature"][10:20].values
    np.testing.assert_array_equal(got, (month(1).t2m + np.float32(0.5)).values)


def test_a_moved_start_keeps_whole_shards_that_still_fit(files, reads):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    ingest(paths, target)
    old = shards(target)
    ingest(paths, target, reads=reads, start="2020-01-02")
    assert reads == []
    new = shards(target)
    assert new["2m_temperature/c/0/0/0"] == old["2m_temperature/c/1/0/0"]
    ingest(paths, files / "whole.zarr", start="2020-01-02")
    assert contents(target) == contents(files / "whole.zarr")


def test_another_layout_is_written_from_the_old_store(files, reads):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    ingest(paths, target)
    other = {"chunk_bytes": 3500, "shard_bytes": 11_000}
    ingest(paths, target, reads=reads, save_args=other)
    assert reads == []
    ingest(paths, files / "whole.zarr", save_args=other)
    assert contents(target) == contents(files / "whole.zarr")


def test_interpolated_steps_give_way_to_real_ones(tmp_path, reads):
    paths = [tmp_path / f"m{n}.nc" for n in range(3)]
    month(0).isel(time=slice(0, 9)).to_netcdf(paths[0])
    month(1).to_netcdf(paths[1])
    target = tmp_path / "fields.zarr"
    ingest(paths[:2], target, missing_steps="interpolate")
    late = month(0).isel(time=slice(9, 10))
    late.to_netcdf(paths[2])
    dataset = ingest(paths, target, reads=reads, missing_steps="interpolate", block_bytes=1)
    assert steps_read(reads) == {"m2.nc": 1}
    assert "interpolated" not in dataset.load()
    np.testing.assert_array_equal(dataset.load()["2m_temperature"][9], late.t2m[0])
    ingest(paths, tmp_path / "whole.zarr", missing_steps="interpolate")
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_a_climatology_that_fills_ties_all_steps_to_its_period(files, reads):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    rule = {"fill": {"2m_temperature": "climatology"}}
    ingest(paths[:2], target, **rule)
    ingest(paths, target, reads=reads, **rule)
    assert steps_read(reads)["m0.nc"] >= 10
    ingest(paths, files / "whole.zarr", **rule)
    assert contents(target) == contents(files / "whole.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_source_that_is_a_store_may_grow(tmp_path, reads, zarr_format):
    source, target = tmp_path / "source.zarr", tmp_path / "fields.zarr"
    options = {"zarr_format": zarr_format, "consolidated": False}
    chunks = {"t": {"chunks": (2, 2, 9, 16)}, "t2m": {"chunks": (2, 9, 16)}}
    month(0).to_zarr(source, encoding=chunks, **options)
    ingest(source, target)
    month(1).to_zarr(source, append_dim="time", **options)
    ingest(source, target, reads=reads)
    assert steps_read(reads) == {"source.zarr": 10}
    # One chunk of old steps is written again: the shard of steps 4 to 7 no longer holds.
    month(3).isel(time=slice(0, 2)).drop_vars(["time", "level", "latitude", "longitude"]).to_zarr(
        source, region={"time": slice(4, 6)}, **options
    )
    ingest(source, target, reads=reads)
    assert steps_read(reads) == {"source.zarr": 2}
    ingest(source, tmp_path / "whole.zarr")
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_a_store_behind_a_url_may_be_filled_further(tmp_path, reads):
    """As ARCO-ERA5 is every month."""
    source, target = "memory://growing/arco.zarr", tmp_path / "fields.zarr"
    chunks = {"t": {"chunks": (1, 2, 9, 16)}, "t2m": {"chunks": (1, 9, 16)}}
    both = xr.concat([month(0), month(1)], "time")

    def fill(stop, **attrs):
        attrs = {"valid_time_start": "2020-01-01", "valid_time_stop": stop, **attrs}
        both.assign_attrs(attrs).to_zarr(source, mode="w", zarr_format=2, consolidated=True, encoding=chunks)

    fill("2020-01-02")
    ingest(source, target)
    fill("2020-01-05")
    dataset = ingest(source, target, reads=reads)
    assert steps_read(reads) == {"arco.zarr": 12} and dataset.load().sizes["time"] == 20
    fill("2020-01-05", history="made anew")
    ingest(source, target, reads=reads)
    assert steps_read(reads) == {"arco.zarr": 20}
    ingest(source, tmp_path / "whole.zarr")
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_fields_of_other_types_and_empty_ones_are_resumed_too(tmp_path, monkeypatch):
    source = month(0)
    source["daylight"] = source["t2m"] > 280
    source["t2m"][2:4] = np.nan
    chunked = source.chunk(time=4).rename(latitude="y", longitude="x")
    attach(chunked, Trace("recipe", ("a",) * 10))
    original, written = sharded.ShardedWriter._note, []

    def interrupted(self, block, files, counts):
        original(self, block, files, counts)
        written.append(sorted(files))
        if len(written) == 2:
            raise KeyboardInterrupt

    target = tmp_path / "fields.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(sharded.ShardedWriter, "_note", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ZarrFieldsDataset(filepath=str(target), save_args=SMALL).save(chunked)
    assert written == [
        ["daylight/c/0/0/0", "t/c/0/0/0/0", "t2m/c/0/0/0"],
        ["daylight/c/1/0/0", "t/c/1/0/0/0"],
    ]
    ZarrFieldsDataset(filepath=str(target), save_args=SMALL).save(chunked)
    xr.testing.assert_equal(xr.open_zarr(target).compute(), chunked.compute())
    ZarrFieldsDataset(filepath=str(tmp_path / "whole.zarr"), save_args=SMALL).save(chunked)
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_a_trace_does_not_outlive_a_change(files):
    paths, target = sorted(files.glob("m*.nc")), files / "fields.zarr"
    dataset = ingest(paths, target)
    before = dataset.load()["2m_temperature"].values
    for change in (
        lambda f: f.assign({"2m_temperature": f["2m_temperature"] + 1}),
        lambda f: f.assign_coords(time=f["time"] + np.timedelta64(6, "h")),
        lambda f: f.isel(time=slice(4, None)),
        lambda f: f.compute(),
    ):
        fields = prepare(paths)
        assert trace_of(fields) is not None and trace_of(change(fields)) is None
    fields = prepare(paths)
    dataset.save(fields.assign({"2m_temperature": fields["2m_temperature"] + 1}))
    np.testing.assert_array_equal(dataset.load()["2m_temperature"], before + 1)


@pytest.mark.parametrize("target", ["8x16", None])
def test_regridded_steps_stand_as_well(files, target):
    paths = sorted(files.glob("m*.nc"))
    parameters = RegridParameters(target=target, method="bilinear")

    def regrid(fields, folder, weights=None):
        grid = regridding.choose_target_grid(fields, parameters)
        weights = weights or regridding.make_regrid_weights(fields, grid, None, parameters)
        made = regridding.regrid_fields(fields, weights, grid, parameters)
        ZarrFieldsDataset(filepath=str(folder), save_args=SMALL).save(made)
        return weights

    weights = regrid(ingest(paths[:1], files / "fields.zarr").load(), files / "regridded.zarr")
    old = shards(files / "regridded.zarr")
    fields = ingest(paths, files / "fields.zarr").load()
    regrid(fields, files / "regridded.zarr")
    new = shards(files / "regridded.zarr")
    assert {name.split("/")[2] for name in old} == {"0", "1", "2"}
    assert {name.split("/")[2] for name in old if new[name] == old[name]} == {"0", "1"}
    regrid(fields, files / "whole.zarr")
    assert contents(files / "regridded.zarr") == contents(files / "whole.zarr")
    # Other weights of the same name make everything anew.
    other = dataclasses.replace(weights, s=weights.s * 1.1)
    regrid(fields, files / "regridded.zarr", other)
    changed = xr.open_zarr(files / "regridded.zarr")["2m_temperature"].values
    if target is not None:
        np.testing.assert_allclose(
            changed, 1.1 * xr.open_zarr(files / "whole.zarr")["2m_temperature"], rtol=1e-5
        )


@pytest.mark.parametrize("wave", [1, 3])
def test_threads_write_what_one_thread_writes(files, monkeypatch, wave):
    paths = sorted(files.glob("m*.nc"))
    with dask.config.set(scheduler="synchronous"):
        ingest(paths, files / "serial.zarr")
    monkeypatch.setattr(sharded, "_workers", lambda: wave)
    with dask.config.set(scheduler="threads", num_workers=4):
        ingest(paths, files / "threads.zarr")
    assert contents(files / "threads.zarr") == contents(files / "serial.zarr")


@pytest.mark.slow
def test_several_processes_write_what_one_thread_writes(files):
    distributed = pytest.importorskip("distributed")
    paths = sorted(files.glob("m*.nc"))
    ingest(paths, files / "serial.zarr")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert sharded._workers() == 2
        processes = set(client.run(os.getpid).values())
        ZarrFieldsDataset(filepath=str(files / "cluster.zarr"), save_args=SMALL).save(prepare(paths))
        # Two at once are resumed and appended to in the same way.
        ingest(paths[:2], files / "grown.zarr")
        ingest(paths, files / "grown.zarr")
    assert len(processes) == 2 and os.getpid() not in processes
    expected = contents(files / "serial.zarr")
    assert contents(files / "cluster.zarr") == expected
    assert contents(files / "grown.zarr") == expected
    assert len(shards(files / "cluster.zarr")) == 16


def test_a_cluster_is_given_no_pool_of_threads(files, monkeypatch):
    """It could not be sent to workers, nor be part of the configuration of those that replace dead ones."""
    distributed = pytest.importorskip("distributed")
    given = []
    original = dask.compute

    def noted(*tasks, **options):
        given.append((sorted(options), dask.config.get("pool", None)))
        return original(*tasks, **options)

    fields = prepare([files / "m0.nc"])
    monkeypatch.setattr(sharded.dask, "compute", noted)
    dataset = ZarrFieldsDataset(filepath=str(files / "fields.zarr"), save_args=SMALL)
    dataset.save(fields)
    assert given and set(map(str, given)) == {"(['pool'], None)"}
    given.clear()
    dataset.start_afresh()
    with distributed.Client(n_workers=1, processes=False, dashboard_address=":0"):
        dataset.save(fields)
    assert given and set(map(str, given)) == {"([], None)"}
