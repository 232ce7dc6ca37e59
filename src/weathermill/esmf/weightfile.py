"""Weight files in ESMF's layout, as NetCDF."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from weathermill.esmf import geometry
from weathermill.esmf.constants import NormType, RegridMethod
from weathermill.esmf.provider import PROVIDER

_METHODS = {
    RegridMethod.BILINEAR: "Bilinear remapping",
    RegridMethod.PATCH: "Bilinear remapping",
    RegridMethod.CONSERVE: "Conservative remapping",
    RegridMethod.NEAREST_STOD: "Bilinear remapping",
    RegridMethod.NEAREST_DTOS: "Bilinear remapping",
}


def write_weight_file(filename, weights, source, target, options, *, auxiliary=False) -> None:
    """Write weights to a NetCDF file in ESMF's layout.

    Parameters
    ----------
    filename : str or os.PathLike
        Where; the file appears under this name only when it is complete.
    weights : weathermill.esmf.weights.Weights
        What.
    source, target : weathermill.esmf.field.Field
        The fields the weights are between.
    options : weathermill.esmf.weights.Options
        How the weights were made.
    auxiliary : bool, optional
        Whether to add coordinates, masks, areas and covered fractions of both grids, and attributes that say
        how the weights were made and by whom (ESMF's ``FileMode.WITHAUX``), or, as ESMF does by default, to
        write nothing but ``row``, ``col`` and ``S``.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    from scipy.io import netcdf_file

    path = Path(filename)
    partial = path.with_name(path.name + ".partial")
    with netcdf_file(partial, "w", version=2) as file:
        file.createDimension("n_s", len(weights.factor))
        if auxiliary:
            _put_auxiliary(file, weights, source, target, options)
        _put(file, "col", ("n_s",), weights.col)
        _put(file, "row", ("n_s",), weights.row)
        _put(file, "S", ("n_s",), weights.factor)
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    partial.replace(path)


def _put_auxiliary(file, weights, source, target, options):
    file.title = f"Regridding weights, made by {PROVIDER}"
    file.normalization = "fracarea" if options.norm_type == NormType.FRACAREA else "destarea"
    file.map_method = _METHODS[RegridMethod(options.regrid_method)]
    file.ESMF_regrid_method = RegridMethod(options.regrid_method).name.lower()
    file.conventions = "NCAR-CSM"
    file.provider = PROVIDER
    fractions = _fractions(weights, source, target, options)
    for letter, prefix, field, mask_values, fraction in (
        ("a", "src", source, options.src_mask_values, fractions[0]),
        ("b", "dst", target, options.dst_mask_values, fractions[1]),
    ):
        shape = np.array(field.spatial_shape, dtype=np.int32)
        file.createDimension(f"n_{letter}", geometry.size_of(field))
        file.createDimension(f"{prefix}_grid_rank", len(shape))
        _put(file, f"{prefix}_grid_dims", (f"{prefix}_grid_rank",), shape)
        lon, lat = geometry.lonlat_of(field)
        masked = geometry.mask_of(field, mask_values)
        valid = np.ones(len(lon)) if masked is None else ~masked
        area = _areas(field) if options.regrid_method == RegridMethod.CONSERVE else np.zeros(len(lon))
        dimension = (f"n_{letter}",)
        _put(file, f"xc_{letter}", dimension, lon, units="degrees")
        _put(file, f"yc_{letter}", dimension, lat, units="degrees")
        _put(file, f"mask_{letter}", dimension, np.asarray(valid, dtype=np.int32), units="unitless")
        _put(file, f"area_{letter}", dimension, area, units="square radians")
        _put(file, f"frac_{letter}", dimension, fraction, units="unitless")


def _put(file, name, dimensions, values, units=None):
    variable = file.createVariable(name, values.dtype.char if values.dtype.kind == "f" else "i", dimensions)
    variable[:] = values
    if units is not None:
        variable.units = units


def _areas(field) -> np.ndarray:
    from weathermill.esmf.polygons import tidy_polygons

    return tidy_polygons(*geometry.cells_of(field))[2]


def _fractions(weights, source, target, options) -> tuple[np.ndarray, np.ndarray]:
    """Which part of each source cell is used, and of each destination cell is covered."""
    sizes = geometry.size_of(source), geometry.size_of(target)
    row, col = weights.row - 1, weights.col - 1
    if options.regrid_method != RegridMethod.CONSERVE:
        mapped = np.zeros(sizes[1])
        mapped[row] = 1.0
        return np.zeros(sizes[0]), mapped
    source_area, target_area = _areas(source), _areas(target)
    if options.norm_type == NormType.FRACAREA:
        return np.ones(sizes[0]), (np.bincount(row, minlength=sizes[1]) > 0).astype(np.float64)
    overlap = weights.factor * target_area[row]
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.bincount(col, weights=overlap, minlength=sizes[0]) / source_area
    return np.nan_to_num(used), np.bincount(row, weights=weights.factor, minlength=sizes[1])
