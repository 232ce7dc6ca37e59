"""The weights are those that real ESMF makes: one test a file of `tests/data/esmf_reference`.

Where README.md of that folder says why ESMF's own weights differ, the test says so too, and checks what should be
there instead.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import sparse

from weathermill import esmf

pytestmark = pytest.mark.skipif(esmf.find_real() is not None, reason="a real ESMPy is installed, and wins")

TOLERANCE = 1e-10
# ESMF's own iteration stops early on this grid.
LOOSE = {"18_tripolar_bilinear_periodic": 1e-8}
POLE_POINTS = "09_polepoints_bilinear_periodic"
FOLDER = Path(__file__).resolve().parents[1] / "data" / "esmf_reference"
CASES = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["cases"]
NEAREST = {name for name, entry in CASES.items() if entry["method"].startswith("nearest")}


@pytest.fixture
def options(case):
    return CASES[case]


@pytest.fixture
def reference(options):
    with xr.open_dataset(FOLDER / options["file"]) as dataset:
        yield dataset.load()


def _grid(reference, which):
    lon, lat = reference[f"{which}_lon"], reference[f"{which}_lat"]
    if lon.dims[0].endswith("loc"):
        return xr.Dataset({"lon": ("loc", lon.values), "lat": ("loc", lat.values)})
    dims = (("lon",), ("lat",)) if lon.ndim == 1 else (("y", "x"), ("y", "x"))
    grid = xr.Dataset({"lon": (dims[0], lon.values), "lat": (dims[1], lat.values)})
    if f"{which}_lon_b" in reference:
        corners = [tuple(f"{dim}_b" for dim in names) for names in dims]
        grid["lon_b"] = (corners[0], reference[f"{which}_lon_b"].values)
        grid["lat_b"] = (corners[1], reference[f"{which}_lat_b"].values)
    if f"{which}_mask" in reference:
        grid["mask"] = (("lat", "lon") if lon.ndim == 1 else ("y", "x"), reference[f"{which}_mask"].values)
    return grid


@pytest.fixture
def weights(case, options, reference):
    """Rows, columns and weights as our `Regrid` gives them, zeros included."""
    from xesmf.backend import esmf_regrid_build
    from xesmf.frontend import ds_to_ESMFgrid, ds_to_ESMFlocstream

    keywords = dict(options["options"])
    bounds = options["method"].startswith("conservative")
    periodic = keywords.pop("periodic", False)
    source = ds_to_ESMFgrid(_grid(reference, "src"), need_bounds=bounds, periodic=periodic)[0]
    if keywords.pop("locstream_out", False):
        target = ds_to_ESMFlocstream(_grid(reference, "dst"))[0]
    else:
        target = ds_to_ESMFgrid(_grid(reference, "dst"), need_bounds=bounds)[0]
    made = esmf_regrid_build(source, target, options["method"], **keywords).get_weights_dict()
    return made["row_dst"], made["col_src"], made["weights"]


@pytest.fixture
def shape(options):
    return int(np.prod(options["shape_out"])), int(np.prod(options["shape_in"]))


def _matrix(row, col, weight, shape):
    return sparse.coo_matrix((weight, (row - 1, col - 1)), shape=shape).tocsr()


def _points(reference, which):
    from weathermill.esmf.sphere import unit_vectors

    lon, lat = reference[f"{which}_lon"], reference[f"{which}_lat"]
    if lon.dims[0].endswith("loc") or lon.ndim == 2:
        return unit_vectors(lon, lat)
    return unit_vectors(*np.meshgrid(lon, lat))


def _equally_near(reference, mine, theirs):
    """Whether two choices of nearest neighbour are equally near, so that rounding decides between them."""
    source, target = _points(reference, "src"), _points(reference, "dst")
    distances = []
    for row, col, _ in (mine, theirs):
        pairs = np.lexsort((col, row))
        distances.append(((source[col[pairs] - 1] - target[row[pairs] - 1]) ** 2).sum(axis=1))
    return np.allclose(np.sort(distances[0]), np.sort(distances[1]), rtol=0.0, atol=1e-15)


@pytest.mark.parametrize("case", sorted(CASES))
def test_weights_are_those_of_esmf(case, options, reference, weights, shape, record_property):
    theirs = reference["row"].values, reference["col"].values, reference["S"].values
    difference = abs(_matrix(*weights, shape) - _matrix(*theirs, shape)).tocsr()
    worst = difference.max(axis=1).toarray().ravel()
    if case == POLE_POINTS:
        # ESMF takes an arbitrary longitude for points on a pole; the next test looks at those rows.
        n_lon = options["shape_out"][1]
        worst = worst[n_lon:-n_lon]
    record_property("largest_difference", float(worst.max()))
    if options["method"].startswith("nearest") and worst.max() > 0.0:
        # Sine and cosine differ in their last bit between machines, which can settle a tie the other way.
        assert _equally_near(reference, weights, theirs)
        return
    assert worst.max() <= LOOSE.get(case, TOLERANCE)


@pytest.mark.parametrize("case", sorted(CASES.keys() - NEAREST - {POLE_POINTS}))
def test_the_same_pairs_are_there(case, reference, weights):
    mine = set(zip(weights[0].tolist(), weights[1].tolist(), strict=True))
    theirs = set(zip(reference["row"].values.tolist(), reference["col"].values.tolist(), strict=True))
    assert mine == theirs


@pytest.mark.parametrize("case", sorted(CASES))
def test_unmapped_points_are_the_same(case, options, reference, weights, shape):
    mapped = np.zeros(shape[0], dtype=bool)
    mapped[weights[0] - 1] = True
    assert int((~mapped).sum()) == options["unmapped"]
    if options["method"] != "nearest_d2s":
        theirs = np.zeros(shape[0], dtype=bool)
        theirs[reference["row"].values - 1] = True
        np.testing.assert_array_equal(mapped, theirs)


@pytest.mark.parametrize("case", [POLE_POINTS])
def test_pole_points_keep_their_longitude(case, reference, weights, shape):
    matrix = _matrix(*weights, shape)
    lon_in, lon_out = reference["src_lon"].values, reference["dst_lon"].values
    angle = np.deg2rad(np.tile(lon_in, len(reference["src_lat"])))
    expected_position = np.interp(lon_out, [*lon_in, 360.0], np.arange(len(lon_in) + 1))
    for rows in (slice(0, len(lon_out)), slice(-len(lon_out), None)):
        block = matrix[rows]
        np.testing.assert_allclose(np.asarray(block.sum(axis=1)).ravel(), 1.0, rtol=0, atol=1e-14)
        got = np.angle(block @ np.exp(1j * angle), deg=True) % 360.0
        exact = np.isclose(expected_position % 1.0, 0.0)
        np.testing.assert_allclose(got[exact], lon_out[exact], atol=1e-10)
        np.testing.assert_allclose((got - lon_out + 180.0) % 360.0 - 180.0, 0.0, atol=0.1)


def test_every_file_is_as_it_was_recorded():
    assert len(CASES) == 25
    for name, entry in CASES.items():
        digest = hashlib.sha256((FOLDER / entry["file"]).read_bytes()).hexdigest()
        assert digest == entry["sha256"], name
