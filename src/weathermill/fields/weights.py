"""Regridding weights: a sparse matrix with the two grids it belongs to, in ESMF's file layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from weathermill.errors import GridError, RegridWeightsError
from weathermill.fields.cell_vertices import curvilinear_areas, vertices_of_corners
from weathermill.fields.geometry import cell_areas, octahedral_areas, octahedral_number, polygon_areas
from weathermill.fields.grids import (
    build_grid,
    grid_corners,
    grid_hash,
    grid_points,
    is_point_list,
    is_rectilinear,
    point_list,
)

METHODS = ("bilinear", "conservative", "conservative_normed", "nearest_s2d", "nearest_d2s", "patch")
CONSERVATIVE = ("conservative", "conservative_normed")

_LAYOUT = "weathermill-weights-2"

# ESMF's names for methods and normalisations, as its own weight files have them in their attributes.
_MAP_METHOD = {
    "bilinear": "Bilinear remapping",
    "patch": "Higher-order Patch",
    "nearest_s2d": "Nearest source to destination",
    "nearest_d2s": "Nearest destination to source",
    "conservative": "Conservative remapping",
    "conservative_normed": "Conservative remapping",
}


def mask_hash(mask: np.ndarray | None) -> str:
    """Return a hash of a mask (True is valid), or ``none``."""
    if mask is None:
        return "none"
    valid = np.ascontiguousarray(np.asarray(mask) != 0)
    return hashlib.sha256(repr(valid.shape).encode() + np.packbits(valid).tobytes()).hexdigest()


def weights_key(
    source_grid: xr.Dataset,
    target_grid: xr.Dataset,
    method: str,
    mask: np.ndarray | None = None,
    **options: Any,
) -> str:
    """Return what identifies weights: a SHA-256 over both grids, the mask, the method and its options.

    Parameters
    ----------
    source_grid, target_grid
        From :mod:`weathermill.fields.grids`, or any dataset with a latitude and longitude.
    method
        A method of xESMF.
    mask
        (latitude, longitude) of the source, True or 1 where valid.
    options
        Further options of the method (extrapolation).
    """
    parts = [_LAYOUT, grid_hash(source_grid), grid_hash(target_grid), method, mask_hash(mask)]
    if options:
        parts.append(json.dumps(options, sort_keys=True))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class RegridWeights:
    """A sparse matrix from a source grid to a target grid.

    Attributes
    ----------
    row, col
        int32, from 1: flat positions (C order) on target and source, sorted by row, then column.
    s
        float64 weights.
    source_shape, target_shape
        (latitude, longitude), (y, x), or (points,).
    method
        A method of xESMF.
    key
        From :func:`weights_key`.
    source_hash, target_hash
        From :func:`weathermill.fields.grids.grid_hash`.
    provider
        Which ESMPy made them.
    source, target
        The grids themselves.
    mask
        Of the source's shape, int32, 1 where valid, or None.
    attrs
        Further facts, such as ``seconds``: the time that making them took.
    """

    row: np.ndarray
    col: np.ndarray
    s: np.ndarray
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    method: str
    key: str
    source_hash: str
    target_hash: str
    provider: str
    source: xr.Dataset
    target: xr.Dataset
    mask: np.ndarray | None = None
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def n_source(self) -> int:
        """Number of source points."""
        return int(np.prod(self.source_shape))

    @property
    def n_target(self) -> int:
        """Number of target points."""
        return int(np.prod(self.target_shape))

    def row_sums(self) -> np.ndarray:
        """Return the sum of the weights of each target point, float64 (n_target,)."""
        return np.bincount(self.row - 1, weights=self.s, minlength=self.n_target)

    def mapped(self) -> np.ndarray:
        """Return whether any source point counts for each target point, bool (n_target,)."""
        counts = np.bincount(self.row[self.s != 0.0] - 1, minlength=self.n_target)
        return counts > 0

    def to_dataset(self) -> xr.Dataset:
        """Return the weights in the layout of ESMF's weight files.

        Dimensions ``n_a`` (source), ``n_b`` (target), ``n_s`` (weights); centres in degrees, areas (of
        great-circle polygons, in steradians), fractions of cells that overlap; ``row`` and ``col`` count from 1; grid dimensions are in
        Fortran order (longitude first), of rank 1 for lists of points, whose areas are 0. The corners are kept
        beside, so that the grids can be had back.
        """
        area_a, area_b = (grid_areas(grid, great_circles=True) for grid in (self.source, self.target))
        frac_a, frac_b = self._fractions(area_a, area_b)
        mask_a = np.ones(self.n_source, np.int32) if self.mask is None else self.mask.astype(np.int32).ravel()
        variables: dict[str, Any] = {
            "src_grid_dims": ("src_grid_rank", np.array(self.source_shape[::-1], dtype=np.int32)),
            "dst_grid_dims": ("dst_grid_rank", np.array(self.target_shape[::-1], dtype=np.int32)),
            "mask_a": ("n_a", mask_a),
            "mask_b": ("n_b", np.ones(self.n_target, np.int32)),
            "area_a": ("n_a", area_a, {"units": "steradian"}),
            "area_b": ("n_b", area_b, {"units": "steradian"}),
            "frac_a": ("n_a", frac_a, {"units": "1"}),
            "frac_b": ("n_b", frac_b, {"units": "1"}),
            "col": ("n_s", self.col.astype(np.int32)),
            "row": ("n_s", self.row.astype(np.int32)),
            "S": ("n_s", self.s),
        }
        for letter, grid in (("a", self.source), ("b", self.target)):
            latitude, longitude = grid_points(grid)
            variables[f"xc_{letter}"] = (f"n_{letter}", longitude, {"units": "degrees"})
            variables[f"yc_{letter}"] = (f"n_{letter}", latitude, {"units": "degrees"})
            if _has_corners(grid):
                rows, columns = grid_corners(grid)
                names = [f"corner_y_{letter}", f"corner_x_{letter}"]
                if rows.ndim == 1:
                    variables[f"yb_{letter}"] = (names[0], rows, {"units": "degrees"})
                    variables[f"xb_{letter}"] = (names[1], columns, {"units": "degrees"})
                else:
                    variables[f"yb_{letter}"] = (names, rows, {"units": "degrees"})
                    variables[f"xb_{letter}"] = (names, columns, {"units": "degrees"})
        return xr.Dataset(
            variables,
            attrs={
                "title": "Regridding weights in ESMF's layout",
                "conventions": "NCAR-CSM",
                "map_method": _MAP_METHOD[self.method],
                "normalization": "fracarea" if self.method == "conservative_normed" else "destarea",
                "method": self.method,
                "provider": self.provider,
                "key": self.key,
                "source_hash": self.source_hash,
                "target_hash": self.target_hash,
                "weights_hash": self.content_hash(),
                "masked": int(self.mask is not None),
                "rectilinear_a": int(is_rectilinear(self.source)),
                "rectilinear_b": int(is_rectilinear(self.target)),
                "facts": json.dumps(self.attrs, sort_keys=True),
            },
        )

    def _fractions(self, area_a: np.ndarray, area_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = self.row_sums()
        if self.method != "conservative":
            return np.zeros(self.n_source), np.where(self.mapped(), 1.0, 0.0)
        overlap = np.bincount(self.col - 1, weights=self.s * area_b[self.row - 1], minlength=self.n_source)
        return np.divide(overlap, area_a, out=np.zeros_like(overlap), where=area_a > 0), sums

    def content_hash(self) -> str:
        """Return a SHA-256 over the matrix itself, by which damage is found on reading."""
        digest = hashlib.sha256(repr((self.source_shape, self.target_shape, self.method)).encode())
        for array, dtype in ((self.row, np.int32), (self.col, np.int32), (self.s, np.float64)):
            digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> RegridWeights:
        """Return weights from the dataset that :meth:`to_dataset` made.

        Raises
        ------
        RegridWeightsError
            Where parts are missing, indices lie outside the grids, or the contents are not those that were
            written.
        """
        try:
            attrs = dataset.attrs
            shapes = [
                tuple(int(n) for n in dataset[name].values[::-1])
                for name in ("src_grid_dims", "dst_grid_dims")
            ]
            grids = [
                _grid_from(dataset, letter, shape, bool(int(attrs[f"rectilinear_{letter}"])))
                for letter, shape in zip("ab", shapes, strict=True)
            ]
            masked = bool(int(attrs["masked"]))
            weights = cls(
                row=dataset["row"].values.astype(np.int32),
                col=dataset["col"].values.astype(np.int32),
                s=dataset["S"].values.astype(np.float64),
                source_shape=shapes[0],
                target_shape=shapes[1],
                method=str(attrs["method"]),
                key=str(attrs["key"]),
                source_hash=str(attrs["source_hash"]),
                target_hash=str(attrs["target_hash"]),
                provider=str(attrs["provider"]),
                source=grids[0],
                target=grids[1],
                mask=dataset["mask_a"].values.reshape(shapes[0]) if masked else None,
                attrs=json.loads(str(attrs["facts"])),
            )
        except (KeyError, ValueError, IndexError) as error:
            raise RegridWeightsError(
                f"the weights lack a part or hold one of another form: {error}"
            ) from error
        weights.validate(expected=str(attrs["weights_hash"]))
        return weights

    def validate(self, expected: str | None = None) -> None:
        """Check that indices lie inside the grids, weights are finite and the contents are as expected.

        Raises
        ------
        RegridWeightsError
            Where they are not.
        """
        if self.method not in METHODS:
            raise RegridWeightsError(f"the method {self.method!r} is unknown")
        for name, index, n in (("row", self.row, self.n_target), ("col", self.col, self.n_source)):
            if index.size and (index.min() < 1 or index.max() > n):
                raise RegridWeightsError(
                    f"`{name}` runs from {index.min()} to {index.max()}, beyond 1 to {n}"
                )
        if not np.isfinite(self.s).all():
            raise RegridWeightsError("there are weights that are not finite")
        if not (self.row.shape == self.col.shape == self.s.shape):
            raise RegridWeightsError("`row`, `col` and `S` differ in length")
        if expected is not None and self.content_hash() != expected:
            raise RegridWeightsError("the weights are not those that were written: the file is damaged")


def _has_corners(grid: xr.Dataset) -> bool:
    """Return whether a grid has cells: not where it is a list of points, has no vertices or ones that do not meet."""
    try:
        grid_corners(grid)
    except GridError:
        return False
    return True


def grid_areas(grid: xr.Dataset, *, great_circles: bool = False) -> np.ndarray:
    """Return flat cell areas in steradians: exact ones, or those of great-circle polygons, as ESMF has them.

    Cells of curvilinear grids are polygons either way. Zero throughout where these have no vertices, and for lists of
    points, which have no polygons; exact areas are known of octahedral grids alone among these.
    """
    if is_point_list(grid):
        n = None if great_circles else octahedral_number(grid.latitude.values, grid.longitude.values)
        return np.zeros(grid.latitude.size) if n is None else octahedral_areas(n)
    if not _has_corners(grid):
        return np.zeros(grid.latitude.size)
    rows, columns = grid_corners(grid)
    if grid.latitude.ndim == 2:
        return curvilinear_areas(rows, columns).ravel()
    if great_circles:
        return polygon_areas(rows, columns).ravel()
    return cell_areas(
        grid.latitude.values, grid.longitude.values, latitude_bounds=rows, longitude_bounds=columns
    ).ravel()


def _grid_from(dataset: xr.Dataset, letter: str, shape: tuple[int, ...], rectilinear: bool) -> xr.Dataset:
    latitude = dataset[f"yc_{letter}"].values.reshape(shape)
    longitude = dataset[f"xc_{letter}"].values.reshape(shape)
    if len(shape) == 1:
        return point_list(latitude, longitude)
    if rectilinear:
        return build_grid(
            latitude[:, 0],
            longitude[0],
            latitude_bounds=dataset[f"yb_{letter}"].values,
            longitude_bounds=dataset[f"xb_{letter}"].values,
        )
    coords: dict[str, Any] = {"latitude": (("y", "x"), latitude), "longitude": (("y", "x"), longitude)}
    if f"yb_{letter}" in dataset:
        for axis, name in (("latitude", f"yb_{letter}"), ("longitude", f"xb_{letter}")):
            coords[f"{axis}_bounds"] = (("y", "x", "vertices"), vertices_of_corners(dataset[name].values))
    return xr.Dataset(coords=coords)
