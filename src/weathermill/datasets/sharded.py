"""Writing a sharded Zarr store so that a killed writing goes on, old steps are kept, and many workers may write.

The store grows in ``<name>.partial/store``; a journal beside it says which blocks of time are whole. Each block is one
shard of every variable, and each shard is written by one task in one piece, so that no two tasks ever touch the same
chunk. A block that the journal has under the same key is kept; one that the old store has, from the same sources, is
linked in; steps that are scattered over the old store are copied from there; only the others are computed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.base
import dask.threaded
import numpy as np
import xarray as xr
import zarr
from dask.system import CPU_COUNT

from weathermill.datasets.block_counts import BlockCounts, Counts, from_json, to_json
from weathermill.datasets.donor import Donor
from weathermill.datasets.local import remove, replace, sync, writable
from weathermill.datasets.shards import (
    NOTES,
    Files,
    Layout,
    codecs,
    intact,
    selected,
    store_shard,
    stored_file,
)
from weathermill.fields.origins import Trace, digest
from weathermill.fields.plausibility import limits_of
from weathermill.progress import Progress

logger = logging.getLogger(__name__)


class ShardedWriter:
    """Writes one store.

    Parameters
    ----------
    target
        Where it will be; what stands there stays until the new one is whole.
    fields
        Lazy or not, with dimension ``time``.
    layout
        From the dataset.
    trace
        Where the steps come from. Without one nothing is taken over, and nothing is left of an interrupted writing.
    afresh
        Take nothing over in any case.
    count
        Whether the values are those of canonical fields: they are counted as they pass, and judged by the limits of
        their variables.
    warned
        Variables that were warned of when what the fields are made of was stored.
    """

    def __init__(
        self,
        target: Path,
        fields: xr.Dataset,
        layout: Layout,
        trace: Trace | None,
        *,
        afresh: bool = False,
        count: bool = True,
        warned: Collection[str] = (),
    ) -> None:
        self.target, self.fields, self.layout, self.trace = target, fields, layout, trace
        self.work = target.with_name(target.name + ".partial")
        self.store = self.work / "store"
        self.journal = self.work / "journal"
        self.steps = fields.sizes["time"]
        self.blocks = [
            range(start, min(start + layout.shard, self.steps))
            for start in range(0, self.steps, layout.shard)
        ]
        self.varying = {str(name): v for name, v in fields.data_vars.items() if "time" in v.dims}
        self.flags = {name: v for name, v in self.varying.items() if v.dims == ("time",)}
        self.done: dict[int, Files] = {}
        self.count, self.counts = count, BlockCounts(fields, warned)
        self.pool: ThreadPoolExecutor | None = None
        self.afresh = afresh or trace is None

    def write(self, label: str) -> None:
        """Write everything that is not there, and put the store in its place.

        Raises
        ------
        UnwritableOutputError
            If the operating system refuses to write there.
        ImplausibleValueError
            If values are infinite, or too many of them beyond the limits of their variable. What stood there stays, and
            so does what was written, for the same run to go on with.
        """
        with writable(self.target):
            try:
                self._prepare()
                # Leaving it waits for threads that still write when an error goes on: what they wrote would stay behind.
                with _pool() as self.pool:
                    self._fill(label)
                self._finish()
            except BaseException:
                if self.trace is None or not self.done:
                    with contextlib.suppress(OSError):
                        remove(self.work)
                raise

    def _key(self, block: range) -> str | None:
        if self.trace is None:
            return None
        shapes = {name: [str(v.dtype), *v.shape] for name, v in self.varying.items()}
        for name, v in self.varying.items():
            shapes[name][1 + v.dims.index("time")] = 0
        times = [str(when) for when in self.fields["time"].values[block.start : block.stop]]
        geometry = [self.layout.chunk, self.layout.shard, codecs(self.layout), shapes]
        return digest([self.trace.recipe, self.trace.origins[block.start : block.stop], times, geometry])

    def _prepare(self) -> None:
        """Keep of an interrupted writing what holds, remove the rest, and write metadata, coordinates and statics."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        entries = [] if self.afresh else self._entries()
        counts: dict[int, Counts] = {}
        for block, key, files, counted in entries:
            if block < len(self.blocks) and key == self._key(self.blocks[block]):
                self.done[block], counts[block] = files, counted
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            whole = list(pool.map(lambda files: intact(self.store, files), self.done.values()))
        self.done = {b: f for (b, f), good in zip(self.done.items(), whole, strict=True) if good}
        for block in self.done:
            self.counts.add(block, self.blocks[block].start, counts[block])
        if not self.done:
            remove(self.work)
        self.store.mkdir(parents=True, exist_ok=True)
        kept = {name for files in self.done.values() for name in files}
        for file in [entry for entry in self.store.rglob("*") if entry.is_file()]:
            if file.relative_to(self.store).as_posix() not in kept:
                file.unlink()
        self._rewrite_journal()
        self._write_header()

    def _entries(self) -> Iterator[tuple[int, str, Files, Counts]]:
        try:
            lines = self.journal.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                files = {n: (s, h) for n, (s, h) in entry["files"].items()}
                yield entry["block"], entry["key"], files, from_json(entry["values"])
            except (ValueError, KeyError, TypeError, AttributeError):
                # The last line of a killed process may be cut off; its block counts as not written.
                return

    def _rewrite_journal(self) -> None:
        fresh = self.journal.with_name("journal.new")
        with fresh.open("w", encoding="utf-8") as file:
            for block in self.done:
                file.write(self._line(block))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.journal)

    def _line(self, block: int) -> str:
        entry = {
            "block": block,
            "key": self._key(self.blocks[block]),
            "files": self.done[block],
            "values": to_json(self.counts.blocks[block]),
        }
        return json.dumps(entry) + "\n"

    def _note(self, block: int, files: Files, counts: Counts) -> None:
        self.done[block] = files
        self.counts.add(block, self.blocks[block].start, counts)
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(self._line(block))
            file.flush()
            os.fsync(file.fileno())

    def _write_header(self) -> None:
        """Write everything but the shards, in a folder of its own, and move it to where the shards are."""
        header = self.work / "header"
        remove(header)
        template = self.fields.assign(
            {
                name: v.copy(data=da.zeros(v.shape, dtype=v.dtype, chunks=-1))
                for name, v in self.varying.items()
            }
        )
        fixed = [name for name in template.data_vars if name not in self.varying]
        template = template.assign({name: template[name].compute() for name in fixed})
        if self.count:
            self.counts.add_static(template[fixed])
        template = template.assign_coords({name: c.compute() for name, c in template.coords.items()})
        template.to_zarr(
            header,
            mode="w",
            zarr_format=3,
            compute=False,
            encoding={name: dict(options) for name, options in self.layout.encoding.items()},
            consolidated=False,
        )
        for file in [entry for entry in header.rglob("*") if entry.is_file()]:
            place = self.store / file.relative_to(header)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
        remove(header)

    def _fill(self, label: str) -> None:
        pending = [i for i in range(len(self.blocks)) if i not in self.done]
        resumed = self.steps - sum(len(self.blocks[i]) for i in pending)
        donor = None if self.afresh else Donor.of(self)
        linked = 0
        for i in list(pending) if donor is not None else ():
            taken = donor.link(self.blocks[i], self.store)
            if taken is not None:
                files, counts = taken
                files |= self._compute([self.blocks[i]], None, self.flags)[0][0] if self.flags else {}
                self._note(i, files, counts)
                pending.remove(i)
                linked += len(self.blocks[i])
        if resumed or linked:
            logger.info(
                "%s: of %d time steps %d were written before an interruption and %d stand in the old store",
                self.target.name,
                self.steps,
                resumed,
                linked,
            )
        self.counts.require(self.target)
        wave, left = _workers(), sum(len(self.blocks[i]) for i in pending)
        with Progress(label, left, "time steps") as progress:
            for start in range(0, len(pending), wave):
                chosen = pending[start : start + wave]
                stored = self._compute([self.blocks[i] for i in chosen], donor, self.varying)
                for i, (files, counts) in zip(chosen, stored, strict=True):
                    self._note(i, files, counts)
                    progress.update(len(self.blocks[i]))
                self.counts.require(self.target)

    def _compute(
        self, blocks: list[range], donor: Donor | None, variables: Mapping[str, xr.DataArray]
    ) -> list[tuple[Files, Counts]]:
        """Compute, count and store blocks, each variable of each by a task of its own."""
        tasks, owners = [], []
        stored: list[tuple[Files, Counts]] = [({}, {}) for _ in blocks]
        for k, block in enumerate(blocks):
            for name, variable in variables.items():
                axis = variable.dims.index("time")
                if variable.dtype.kind not in "fiu":
                    stored[k][0].update(self._store_encoded(name, block))
                    continue
                lazy = selected(variable, block)
                if donor is not None and name not in self.flags:
                    lazy = donor.supplement(name, block, lazy, axis)
                tasks.append(
                    da.map_blocks(
                        store_shard,
                        lazy.rechunk(-1),
                        dtype=object,
                        chunks=((1,),) * variable.ndim,
                        meta=np.empty((0,) * variable.ndim, dtype=object),
                        store=str(self.store),
                        variable=name,
                        axis=axis,
                        start=block.start,
                        shard=self.layout.shard,
                        level=variable.dims.index("level") if "level" in variable.dims else None,
                        limits=limits_of(name, variable.attrs) if self._counted(variable) else None,
                    )
                )
                owners.append((k, name))
        # Not by Dask's configuration, which a cluster sends to workers and tasks inside tasks would wait in.
        threads = dask.base.get_scheduler(collections=tasks) is dask.threaded.get
        results = dask.compute(*tasks, **({"pool": self.pool} if threads else {}))
        for (k, name), result in zip(owners, results, strict=True):
            files, counts = result.reshape(-1)[0]
            stored[k][0].update(files)
            if counts is not None:
                stored[k][1][name] = counts
        return stored

    def _counted(self, variable: xr.DataArray) -> bool:
        return self.count and variable.dtype.kind == "f"

    def _store_encoded(self, name: str, block: range) -> Files:
        """Store a variable of a type that xarray encodes on its way; such are small."""
        part = self.fields[[name]].isel(time=slice(block.start, block.stop))
        part = part.drop_vars([c for c, v in part.coords.items() if "time" not in v.dims]).compute()
        part.to_zarr(self.store, region={"time": slice(block.start, block.stop)}, consolidated=False)
        axis = self.varying[name].dims.index("time")
        return stored_file(self.store, name, part[name].ndim, axis, block.start // self.layout.shard)

    def _finish(self) -> None:
        self.counts.tell(self.target)
        with warnings.catch_warnings():
            # Consolidated metadata is not in the specification yet; readers that do not know it pass over it.
            warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata.*")
            zarr.consolidate_metadata(self.store, zarr_format=3)
        shards = {name: entry for files in self.done.values() for name, entry in files.items()}
        attributes: dict[str, Any] = {"version": 1, "shards": dict(sorted(shards.items()))}
        if self.count:
            attributes["values"] = to_json(self.counts.total)
        if self.trace is not None:
            attributes["recipe"] = self.trace.recipe
            attributes["origins"] = [[key, len(list(run))] for key, run in groupby(self.trace.origins)]
            attributes["layout"] = [self.layout.chunk, self.layout.shard, codecs(self.layout)]
        notes = self.store / NOTES
        notes.mkdir(exist_ok=True)
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (notes / "zarr.json").write_text(json.dumps(group), encoding="utf-8")
        if self.count and self.trace is not None:
            self.counts.write(notes)
        for file in (entry for entry in self.store.rglob("*") if entry.is_file()):
            if file.relative_to(self.store).as_posix() not in shards:
                sync(file)
        replace(self.store, self.target)
        remove(self.work)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT)


def _workers() -> int:
    """How many processes compute at once: blocks are written in waves of so many."""
    try:
        from distributed import get_client

        return max(1, len(get_client().nthreads()))
    except (ImportError, ValueError):
        return 1
