"""Write fields as NetCDF in the layout of the Climate Data Store, packed to a chosen precision.

Packing is CF's: int16 with one ``scale_factor`` and ``add_offset`` a variable. Levels of a variable may need steps of very
different size (specific humidity falls by two orders of magnitude), so the scale is about the finest level's step and coarser
levels use that times a power of two: the bits that a level does not need stay constant and deflate away (other multiples
would spread a level's information over both bytes and cost a bit a value).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import netCDF4
import numpy as np


class CdsVariable(NamedTuple):
    """What the Climate Data Store writes about a variable."""

    parameter_id: int
    grib_name: str
    long_name: str
    units: str
    standard_name: str
    on_levels: bool
    lower_bound: float | None = None


CDS_VARIABLES: Mapping[str, CdsVariable] = {
    "z": CdsVariable(129, "z", "Geopotential", "m**2 s**-2", "geopotential", True),
    "t": CdsVariable(130, "t", "Temperature", "K", "air_temperature", True),
    "u": CdsVariable(131, "u", "U component of wind", "m s**-1", "eastward_wind", True),
    "v": CdsVariable(132, "v", "V component of wind", "m s**-1", "northward_wind", True),
    "q": CdsVariable(133, "q", "Specific humidity", "kg kg**-1", "specific_humidity", True, 0.0),
    "t2m": CdsVariable(167, "2t", "2 metre temperature", "K", "air_temperature", False),
    "u10": CdsVariable(165, "10u", "10 metre U wind component", "m s**-1", "eastward_wind", False),
    "v10": CdsVariable(166, "10v", "10 metre V wind component", "m s**-1", "northward_wind", False),
    "msl": CdsVariable(151, "msl", "Mean sea level pressure", "Pa", "air_pressure_at_mean_sea_level", False),
}

Compressor = Callable[[bytes], bytes]

_MIDDLE = 128.0


def area_weights(latitude: np.ndarray) -> np.ndarray:
    """Weights (latitude,) of equally spaced rows, mean one: differences of sines between the rows' edges."""
    half = 0.5 * abs(latitude[1] - latitude[0])
    north, south = np.clip(latitude + half, -90, 90), np.clip(latitude - half, -90, 90)
    weights = np.sin(np.deg2rad(north)) - np.sin(np.deg2rad(south))
    return weights / weights.mean()


def tendency_std(field: np.ndarray, latitude: np.ndarray) -> float:
    """Area-weighted root mean square of the step-to-step change of a field (time, latitude, longitude)."""
    change = np.diff(field.astype(np.float64), axis=0)
    return float(np.sqrt((change**2 * area_weights(latitude)[:, None]).mean()))


class Packing(NamedTuple):
    """How a variable is packed: value = integer × scale + offset; ``multiples`` are the levels' steps in scales."""

    scale: np.float32
    offset: np.float32
    multiples: np.ndarray

    def pack(self, field: np.ndarray) -> np.ndarray:
        """Round (time, [level,] latitude, longitude) to the levels' steps and pack as little-endian int16.

        Raises
        ------
        ValueError
            When the values do not fit into 16 bits at this precision.
        """
        multiples = self.multiples.reshape((-1, 1, 1)) if field.ndim == 4 else self.multiples
        steps = (field.astype(np.float64) - float(self.offset)) / float(self.scale) - _MIDDLE
        packed = np.round(steps / multiples) * multiples + _MIDDLE
        if packed.min() < -32767 or packed.max() > 32767:
            raise ValueError("the values span more than 16 bits at this precision: pack more coarsely")
        return packed.astype("<i2")


def choose_packing(
    field: np.ndarray, latitude: np.ndarray, fraction: float, lower_bound: float | None
) -> Packing:
    """Packing whose step is a fraction of each level's tendency standard deviation, within a factor of the square root of two.

    The offset puts the mean (or the lower bound, which so is met exactly) at integer 128, the middle of a byte's range:
    fewer values then cross from one high byte into the next, and deflate, which sees the bytes apart, gains 4 %.
    """
    levels = [field[:, k] for k in range(field.shape[1])] if field.ndim == 4 else [field]
    steps = np.array([fraction * tendency_std(level, latitude) for level in levels])
    if not np.all(steps > 0):
        raise ValueError(
            "a level does not change in time: there is no tendency to measure its packing against"
        )
    # One scale for all levels: the one near the finest step that fits the others best.
    candidates = steps.min() * np.linspace(0.7, 1.42, 145)
    misfit = [np.abs(np.log(_multiples(steps, scale) * scale / steps)).max() for scale in candidates]
    scale = np.float32(f"{candidates[int(np.argmin(misfit))]:.2e}")
    centre = float(np.mean(field, dtype=np.float64)) if lower_bound is None else lower_bound
    offset = np.float32(round(centre / float(scale)) * float(scale) - _MIDDLE * float(scale))
    multiples = _multiples(steps, float(scale))
    return Packing(scale, offset, multiples if field.ndim == 4 else multiples[0])


def _multiples(steps: np.ndarray, scale: float) -> np.ndarray:
    """Powers of two nearest to the ratios."""
    return 2.0 ** np.maximum(0.0, np.round(np.log2(steps / scale)))


def write_cds(
    path: Path,
    fields: Mapping[str, np.ndarray],
    *,
    times: np.ndarray,
    levels: Sequence[float],
    latitude: np.ndarray,
    longitude: np.ndarray,
    fraction: float,
    attributes: Mapping[str, str],
    comments: Mapping[str, str] | None = None,
    compress: Compressor | None = None,
) -> dict[str, Packing]:
    """Write one file, whole or not at all.

    Parameters
    ----------
    path : Path
        Where the file goes; it is written beside under a temporary name first.
    fields : mapping of short name to ndarray
        (time, level, latitude, longitude) or (time, latitude, longitude), in the units of `CDS_VARIABLES`, free of NaN.
    times : ndarray (time,) of int64
        Seconds since 1970-01-01.
    levels : sequence of float
        hPa, decreasing.
    latitude, longitude : ndarray
        Degrees; latitude descending, longitude ascending from 0.
    fraction : float
        Packing step as a fraction of each channel's tendency standard deviation.
    attributes, comments : mapping
        Global attributes, and a ``comment`` by short name.
    compress : callable, optional
        Makes a zlib stream from bytes; zlib's own highest level by default. A better optimiser (zopfli) is read alike.

    Returns
    -------
    dict of short name to Packing
    """
    compress = compress or (lambda data: zlib.compress(data, 9))
    partial = path.with_name(path.name + ".partial")
    packings = {
        name: choose_packing(field, latitude, fraction, CDS_VARIABLES[name].lower_bound)
        for name, field in fields.items()
    }
    try:
        with netCDF4.Dataset(partial, "w", format="NETCDF4") as dataset:
            dataset.setncatts(dict(attributes))
            _define_coordinates(dataset, times, levels, latitude, longitude)
            for name, field in fields.items():
                _define_variable(
                    dataset, name, field, packings[name], latitude, longitude, (comments or {}).get(name)
                )
        with h5py.File(partial, "r+") as file:
            for name, field in fields.items():
                _write_chunks(file[name], packings[name].pack(field), compress)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return packings


def _define_coordinates(dataset, times, levels, latitude, longitude) -> None:
    sizes = {
        "valid_time": len(times),
        "pressure_level": len(levels),
        "latitude": len(latitude),
        "longitude": len(longitude),
    }
    for name, size in sizes.items():
        dataset.createDimension(name, size)
    number = dataset.createVariable("number", "i8", ())
    number.setncatts(
        {"long_name": "ensemble member numerical id", "units": "1", "standard_name": "realization"}
    )
    number[...] = 0
    time = dataset.createVariable("valid_time", "i8", ("valid_time",))
    time.setncatts({
        "long_name": "time", "standard_name": "time", "units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"
    })  # fmt: skip
    time[:] = times
    level = dataset.createVariable("pressure_level", "f8", ("pressure_level",))
    level.setncatts({
        "long_name": "pressure", "units": "hPa", "positive": "down", "stored_direction": "decreasing",
        "standard_name": "air_pressure",
    })  # fmt: skip
    level[:] = levels
    rows = dataset.createVariable("latitude", "f8", ("latitude",))
    rows.setncatts({
        "units": "degrees_north", "standard_name": "latitude", "long_name": "latitude", "stored_direction": "decreasing"
    })  # fmt: skip
    rows[:] = latitude
    columns = dataset.createVariable("longitude", "f8", ("longitude",))
    columns.setncatts({"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"})
    columns[:] = longitude
    version = dataset.createVariable("expver", str, ("valid_time",))
    version[:] = np.array(["0001"] * len(times), dtype=object)


def _define_variable(dataset, name, field, packing, latitude, longitude, comment) -> None:
    facts = CDS_VARIABLES[name]
    dimensions = ("valid_time", "pressure_level", "latitude", "longitude")
    if not facts.on_levels:
        dimensions = ("valid_time", "latitude", "longitude")
    if field.ndim != len(dimensions):
        raise ValueError(f"{name} has {field.ndim} dimensions, the layout wants {dimensions}")
    # All times of one row and level together: deflate finds a row again in the steps before it, which takes a quarter off
    # the size that chunks of whole maps have.
    chunks = (field.shape[0], *(1 for _ in dimensions[1:-1]), field.shape[-1])
    variable = dataset.createVariable(
        name,
        "i2",
        dimensions,
        zlib=True,
        complevel=9,
        shuffle=True,
        chunksizes=chunks,
        fill_value=-32768,
        endian="little",
    )
    variable.set_auto_maskandscale(False)
    variable.setncatts({
        "GRIB_paramId": facts.parameter_id, "GRIB_dataType": "fc", "GRIB_numberOfPoints": len(latitude) * len(longitude),
        "GRIB_typeOfLevel": "isobaricInhPa" if facts.on_levels else "surface", "GRIB_stepType": "instant",
        "GRIB_gridType": "regular_ll", "GRIB_Nx": len(longitude), "GRIB_Ny": len(latitude),
        "GRIB_iDirectionIncrementInDegrees": float(longitude[1] - longitude[0]),
        "GRIB_jDirectionIncrementInDegrees": float(latitude[0] - latitude[1]),
        "GRIB_latitudeOfFirstGridPointInDegrees": float(latitude[0]),
        "GRIB_latitudeOfLastGridPointInDegrees": float(latitude[-1]),
        "GRIB_longitudeOfFirstGridPointInDegrees": float(longitude[0]),
        "GRIB_longitudeOfLastGridPointInDegrees": float(longitude[-1]),
        "GRIB_name": facts.long_name, "GRIB_shortName": facts.grib_name, "GRIB_units": facts.units,
        "long_name": facts.long_name, "units": facts.units, "standard_name": facts.standard_name,
        "coordinates": "number valid_time isobaricInhPa latitude longitude expver" if facts.on_levels
        else "number valid_time latitude longitude expver",
        "scale_factor": packing.scale, "add_offset": packing.offset,
    })  # fmt: skip
    if comment:
        variable.comment = comment


def _write_chunks(dataset: h5py.Dataset, packed: np.ndarray, compress: Compressor) -> None:
    """Fill a dataset chunk by chunk with streams made here; shuffle is undone by the filter on reading."""
    shape = dataset.chunks
    for corner in np.ndindex(*(-(-n // c) for n, c in zip(packed.shape, shape, strict=True))):
        start = tuple(i * c for i, c in zip(corner, shape, strict=True))
        block = np.ascontiguousarray(
            packed[tuple(slice(s, s + c) for s, c in zip(start, shape, strict=True))]
        )
        shuffled = np.frombuffer(block.tobytes(), dtype=np.uint8).reshape(-1, block.itemsize).T.tobytes()
        dataset.id.write_direct_chunk(start, compress(shuffled))
