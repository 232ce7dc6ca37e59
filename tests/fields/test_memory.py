"""Peak memory of the streaming stages, measured in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

_SCRIPT = """
import resource, sys
import numpy as np
import xarray as xr
from weathermill.fields.conventions import canonicalise
from weathermill.fields.flatten import to_channels
from weathermill.fields.grids import area_weights, named_grid
from weathermill.fields.opening import open_sources
from weathermill.fields.regridding import apply_weights, make_weights
from weathermill.fields import statistics as statistics_module
from weathermill.fields.statistics import compute_statistics

statistics_module.PIECE_BYTES = 2**23
store, steps, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
opened = open_sources(store)
stop = opened.datasets[0].time.values[0] + np.timedelta64(6 * steps, "h")
fields = canonicalise(opened.datasets, variables=["temperature"], stop=stop, block_bytes=2**20)
target = named_grid("45x90_cells")
regridded = apply_weights(fields, make_weights(fields, target, "conservative"), target)
regridded.to_zarr(out, mode="w", zarr_format=3, consolidated=False)
array, _ = to_channels(regridded, prognostic=["temperature"])
statistics = compute_statistics(array, area_weights(array.latitude.values), [(0, steps)], 21600)
assert statistics.attrs["steps"] == steps
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Half a year of six-hourly fields, 270 MB in memory, whose chunks on disk share one content."""
    path = tmp_path_factory.mktemp("memory") / "fields.zarr"
    steps, shape = 700, (4, 90, 180)
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-01-01", "ns") + np.arange(steps) * np.timedelta64(6, "h")
    coords = {
        "time": times,
        "level": ("level", [300.0, 500.0, 700.0, 850.0], {"units": "hPa"}),
        "latitude": np.linspace(-89, 89, 90),
        "longitude": np.arange(0, 360, 2.0),
    }
    block = (250 + 10 * rng.standard_normal((10, *shape))).astype(np.float32)
    for start in range(0, steps, 100):
        part = xr.Dataset(
            {
                "t": (
                    ("time", "level", "latitude", "longitude"),
                    np.tile(block, (10, 1, 1, 1)),
                    {"units": "K"},
                )
            },
            coords=coords | {"time": times[start : start + 100]},
        )
        extra = {"append_dim": "time"} if start else {"encoding": {"t": {"chunks": (10, *shape)}}}
        part.to_zarr(path, zarr_format=3, consolidated=False, **extra)
    return path


def test_peak_memory_does_not_grow_with_the_number_of_steps(store, tmp_path):
    peaks = []
    for steps in (70, 700):
        result = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                _SCRIPT,
                str(store),
                str(steps),
                str(tmp_path / "out.zarr"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout.split()[-1]) / 1024)
    data = 630 * 4 * 90 * 180 * 4 / 2**20
    assert data > 150
    assert peaks[1] - peaks[0] < 0.25 * data, peaks
