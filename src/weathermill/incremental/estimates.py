"""How much disk space a run will need, before it begins."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import DataCatalog

from weathermill.errors import WeathermillError
from weathermill.fields.grids import named_grid
from weathermill.incremental.plan import NodePlan, output_path
from weathermill.incremental.records import stored_record
from weathermill.parameters import Parameters

logger = logging.getLogger(__name__)

_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


def estimate_disk(plan: Sequence[NodePlan], catalog: DataCatalog, parameters: Parameters) -> dict[Path, int]:
    """Estimate the bytes of each output that the run will write.

    The large stores are reckoned from the sources' axes and the parameters, uncompressed, which is an upper bound.
    Other outputs count with the size that they had before; unknown ones do not count, being small.

    Parameters
    ----------
    plan
        What will run.
    catalog
        The catalog.
    parameters
        All parameters.
    """
    outputs = {
        name: path
        for entry in plan
        if entry.runs
        for name in entry.node.outputs
        if name in catalog and (path := output_path(catalog.get(name))) is not None
    }
    large = {"fields", "regridded", "normalised", "tensors"} & set(outputs)
    sizes = _large_stores(catalog, parameters) if large else {}
    needed = {}
    for name, path in outputs.items():
        record = stored_record(path)
        size = sizes.get(name, record.size if record else 0)
        if size:
            needed[path] = size
    return needed


def _large_stores(catalog: DataCatalog, parameters: Parameters) -> Mapping[str, int]:
    """Bytes of the stores of fields and tensors; empty where the sources cannot say."""
    try:
        with catalog.load("raw_fields") as opened:
            return _reckon(opened.datasets, parameters)
    except (WeathermillError, KeyError, ValueError, TypeError, AttributeError) as error:
        # Whoever reads the sources tells what is wrong with them.
        logger.debug("the sources do not say how large they are: %s", error)
        return {}
    except Exception as error:
        logger.debug("the sources cannot be read for an estimate: %s", error)
        return {}


def _reckon(datasets: Sequence[Any], parameters: Parameters) -> dict[str, int]:
    ingest = parameters.ingest
    times: set[Any] = set()
    levels = rows = columns = 1
    for dataset in datasets:
        for name, size in dataset.sizes.items():
            rows = max(rows, size) if str(name).startswith("lat") else rows
            columns = max(columns, size) if str(name).startswith("lon") else columns
            levels = max(levels, size) if "lev" in str(name) else levels
        for name in ("valid_time", "time"):
            if name in dataset.sizes and name in dataset.coords:
                values = dataset[name].values
                times |= set(_selected(values, ingest.start, ingest.stop).tolist())
                break
    levels = len(ingest.levels) if ingest.levels else levels
    channels = len(ingest.variables) * levels + len(ingest.surface_variables)
    source = len(times) * channels * rows * columns * 4
    cells = rows * columns
    if parameters.regrid.target is not None:
        grid = named_grid(parameters.regrid.target)
        cells = math.prod((grid.sizes["latitude"], grid.sizes["longitude"]))
    target = len(times) * channels * cells * 4
    tensors = target // 4 * _DTYPE_BYTES[parameters.tensors.dtype]
    return {"fields": source, "regridded": target, "normalised": target, "tensors": tensors}


def _selected(times: np.ndarray, start: str | None, stop: str | None) -> np.ndarray:
    if times.dtype.kind != "M":
        return times
    keep = np.ones(times.shape, bool)
    if start is not None:
        keep &= times >= np.datetime64(start)
    if stop is not None:
        keep &= times < np.datetime64(stop)
    return times[keep]
