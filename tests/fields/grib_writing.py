"""Writing GRIB messages with ecCodes, for tests."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

needs_eccodes = pytest.mark.skipif(
    importlib.util.find_spec("eccodes") is None, reason="ecCodes is not installed"
)

NI, NJ = 36, 19


def field(seed: float, shape=(NJ, NI)) -> np.ndarray:
    """A smooth field, north to south and west to east, whose value tells its place."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    return 250.0 + seed + rows * 0.5 + columns * 0.01


def message(
    values: np.ndarray, *, edition: int = 2, bits: int = 24, sample: str | None = None, **keys
) -> bytes:
    """Return a message on 10 degrees, or as the sample and the keys say; keys are set in their order."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples(sample or f"regular_ll_pl_grib{edition}")
    defaults = (
        {
            "Ni": NI,
            "Nj": NJ,
            "latitudeOfFirstGridPointInDegrees": 90.0,
            "latitudeOfLastGridPointInDegrees": -90.0,
            "longitudeOfFirstGridPointInDegrees": 0.0,
            "longitudeOfLastGridPointInDegrees": 350.0,
            "iDirectionIncrementInDegrees": 10.0,
            "jDirectionIncrementInDegrees": 10.0,
        }
        if sample is None
        else {}
    )
    for key, value in (defaults | {"dataDate": 20200101, "dataTime": 0} | keys).items():
        eccodes.codes_set(handle, key, value)
    if np.isnan(values).any():
        eccodes.codes_set(handle, "bitmapPresent", 1)
        eccodes.codes_set(handle, "missingValue", 1e20)
    eccodes.codes_set(handle, "bitsPerValue", bits)
    eccodes.codes_set_values(handle, np.nan_to_num(values, nan=1e20).ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def summed(values: np.ndarray, steps: str, name: str = "tp", **keys) -> bytes:
    """Return a message of a sum over ``steps``, such as ``0-6``."""
    return covering(values, "accum", steps, name, **keys)


def covering(values: np.ndarray, kind: str, steps: str, name: str, **keys) -> bytes:
    """Return a message of a statistic over ``steps``: ``accum``, ``avg``, ``max`` or ``min``."""
    return message(values, shortName=name, stepType=kind, stepRange=steps, **keys)
