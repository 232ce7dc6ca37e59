"""Fields that are made of others, or of time and place, where no source has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import dask.array as da
import numpy as np
import xarray as xr

from weathermill.errors import MissingVariableError
from weathermill.fields import solar, thermodynamics
from weathermill.fields.coordinates import LATITUDE, LEVEL, LONGITUDE, TIME
from weathermill.fields.findings import Finding, tell
from weathermill.fields.survey import Source, find_offers
from weathermill.fields.vocabulary import STANDARD_GRAVITY, convention_for


@dataclass(frozen=True)
class Derivation:
    """How a field is made.

    Attributes
    ----------
    pressure_needs, surface_needs
        Canonical names of what it is made of.
    make
        Fields -> array; lazy for lazy fields.
    on_levels
        Whether the result has levels.
    note
        How, in a few words.
    units, long_name
        For fields outside the vocabulary.
    of_time_and_place
        Whether time and place alone determine it, so that it can be had for any time to come.
    """

    make: Callable[[xr.Dataset], xr.DataArray]
    note: str
    pressure_needs: tuple[str, ...] = ()
    surface_needs: tuple[str, ...] = ()
    on_levels: bool = False
    units: str = ""
    long_name: str = ""
    of_time_and_place: bool = False


def _blockwise(function, *arrays: xr.DataArray) -> xr.DataArray:
    return xr.apply_ufunc(function, *arrays, dask="parallelized", output_dtypes=[np.float32]).astype(
        np.float32
    )


def _pressure(fields: xr.Dataset) -> xr.DataArray:
    return (fields[LEVEL] * 100.0).astype(np.float32)


def _specific_humidity(fields: xr.Dataset) -> xr.DataArray:
    humidity, temperature = fields["relative_humidity"], fields["temperature"]
    return _blockwise(thermodynamics.specific_humidity, humidity, temperature, _pressure(fields)).transpose(
        *temperature.dims
    )


def _relative_humidity(fields: xr.Dataset) -> xr.DataArray:
    humidity, temperature = fields["specific_humidity"], fields["temperature"]
    return _blockwise(thermodynamics.relative_humidity, humidity, temperature, _pressure(fields)).transpose(
        *temperature.dims
    )


def _speed(eastward: str, northward: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda fields: _blockwise(np.hypot, fields[eastward], fields[northward])


def _column_vapour(fields: xr.Dataset) -> xr.DataArray:
    humidity = fields["specific_humidity"]
    pressure = fields[LEVEL].values * 100.0
    # Each level stands for the layer up to halfway to its neighbours, the outermost ones for half a layer.
    edges = np.concatenate([pressure[:1], 0.5 * (pressure[1:] + pressure[:-1]), pressure[-1:]])
    mass = xr.DataArray((np.diff(edges) / STANDARD_GRAVITY).astype(np.float32), dims=LEVEL)
    return (humidity * mass).sum(LEVEL, skipna=False).astype(np.float32)


def _of_time_and_place(function) -> Callable[[xr.Dataset], xr.DataArray]:
    """Return a maker of a field that depends on time and place alone, chunked as the other fields are."""

    def make(fields: xr.Dataset) -> xr.DataArray:
        times = fields[TIME].values
        horizontal = fields[LATITUDE].dims if fields[LATITUDE].ndim == 2 else (LATITUDE, LONGITUDE)
        latitude, longitude = solar.places(fields[LATITUDE].values, fields[LONGITUDE].values)
        shape = np.broadcast_shapes(latitude.shape, longitude.shape)

        def compute(index) -> np.ndarray:
            return np.asarray(function(times[index], latitude, longitude), dtype=np.float32)

        chunks = next(
            (v.chunks[v.dims.index(TIME)] for v in fields.data_vars.values() if v.chunks and TIME in v.dims),
            None,
        )
        dims = (TIME, *horizontal)
        coords = {name: fields[name] for name in (TIME, LATITUDE, LONGITUDE)}
        if chunks is None:
            return xr.DataArray(compute(slice(None)), dims=dims, coords=coords)
        positions = da.from_array(np.arange(times.size), chunks=(chunks,))
        data = da.map_blocks(
            compute,
            positions,
            new_axis=[1, 2],
            chunks=(chunks, *((size,) for size in shape)),
            dtype=np.float32,
            meta=np.empty((0, 0, 0), dtype=np.float32),
        )
        return xr.DataArray(data, dims=dims, coords=coords)

    return make


def _zenith(times, latitude, longitude) -> np.ndarray:
    return np.clip(solar.cosine_zenith(*solar.days_since_2000(times), latitude, longitude), 0.0, None)


def _insolation(times, latitude, longitude) -> np.ndarray:
    return solar.toa_insolation(times, latitude, longitude)


def _local_time(function) -> Callable:
    def compute(times, latitude, longitude) -> np.ndarray:
        _, hours = solar.days_since_2000(times)
        angle = 2 * np.pi * hours[:, None, None] / 24.0 + np.radians(longitude)
        return np.broadcast_to(
            function(angle), (len(hours), *np.broadcast_shapes(latitude.shape, longitude.shape))
        )

    return compute


def _year_progress(function) -> Callable:
    def compute(times, latitude, longitude) -> np.ndarray:
        days, _ = solar.days_since_2000(times)
        angle = 2 * np.pi * (days + 0.5) / 365.2422
        shape = np.broadcast_shapes(latitude.shape, longitude.shape)
        return np.broadcast_to(function(angle)[:, None, None], (len(days), *shape))

    return compute


#: Canonical name -> how it is made where no source has it.
DERIVATIONS: Mapping[str, Derivation] = MappingProxyType(
    {
        "specific_humidity": Derivation(
            _specific_humidity,
            "from relative humidity and temperature",
            pressure_needs=("relative_humidity", "temperature"),
            on_levels=True,
        ),
        "relative_humidity": Derivation(
            _relative_humidity,
            "from specific humidity and temperature",
            pressure_needs=("specific_humidity", "temperature"),
            on_levels=True,
        ),
        "wind_speed": Derivation(
            _speed("u_component_of_wind", "v_component_of_wind"),
            "from the wind components",
            pressure_needs=("u_component_of_wind", "v_component_of_wind"),
            on_levels=True,
            units="m s-1",
            long_name="Wind speed",
        ),
        "10m_wind_speed": Derivation(
            _speed("10m_u_component_of_wind", "10m_v_component_of_wind"),
            "from the wind components",
            surface_needs=("10m_u_component_of_wind", "10m_v_component_of_wind"),
        ),
        "total_column_water_vapour": Derivation(
            _column_vapour,
            "by the sum of specific humidity over the levels at hand, which misses what lies outside them",
            pressure_needs=("specific_humidity",),
        ),
        "toa_incident_solar_radiation": Derivation(
            _of_time_and_place(_insolation),
            "from time and place, as the sum over the hour before",
            of_time_and_place=True,
        ),
        "cosine_of_solar_zenith_angle": Derivation(
            _of_time_and_place(_zenith),
            "from time and place, zero at night",
            units="1",
            long_name="Cosine of the solar zenith angle",
            of_time_and_place=True,
        ),
        "sine_of_local_solar_time": Derivation(
            _of_time_and_place(_local_time(np.sin)),
            "from time and longitude",
            units="1",
            long_name="Sine of local mean solar time",
            of_time_and_place=True,
        ),
        "cosine_of_local_solar_time": Derivation(
            _of_time_and_place(_local_time(np.cos)),
            "from time and longitude",
            units="1",
            long_name="Cosine of local mean solar time",
            of_time_and_place=True,
        ),
        "sine_of_year_progress": Derivation(
            _of_time_and_place(_year_progress(np.sin)),
            "from the time of the year",
            units="1",
            long_name="Sine of the progress of the year",
            of_time_and_place=True,
        ),
        "cosine_of_year_progress": Derivation(
            _of_time_and_place(_year_progress(np.cos)),
            "from the time of the year",
            units="1",
            long_name="Cosine of the progress of the year",
            of_time_and_place=True,
        ),
    }
)


@dataclass(frozen=True)
class Plan:
    """What to read and what to make, in order.

    ``pressure`` and ``surface`` are names to read; ``made`` are names to make of them, each after its needs.
    """

    pressure: list[str]
    surface: list[str]
    made: list[str]


def plan_derivations(pressure: Sequence[str], surface: Sequence[str], surveyed: Sequence[Source]) -> Plan:
    """Say which of the names asked for are read, and which must be made, and of what.

    Parameters
    ----------
    pressure, surface
        Names asked for.
    surveyed
        From :func:`weathermill.fields.survey.survey`.

    Raises
    ------
    MissingVariableError
        Where a field is in no source and cannot be made of what is there.
    """
    plan = Plan([], [], [])

    def resolve(name: str, on_levels: bool) -> None:
        if name in plan.pressure or name in plan.surface or name in plan.made:
            return
        derivation = DERIVATIONS.get(name)
        if derivation is None or derivation.on_levels != on_levels:
            (plan.pressure if on_levels else plan.surface).append(name)
            return
        try:
            find_offers(name, surveyed, on_levels=on_levels)
        except MissingVariableError as error:
            before = len(plan.pressure), len(plan.surface), len(plan.made)
            try:
                for need in derivation.pressure_needs:
                    _require(need, True, name)
                for need in derivation.surface_needs:
                    _require(need, False, name)
            except MissingVariableError:
                for names, length in zip((plan.pressure, plan.surface, plan.made), before, strict=True):
                    del names[length:]
                raise error from None
            plan.made.append(name)
        else:
            (plan.pressure if on_levels else plan.surface).append(name)

    def _require(need: str, on_levels: bool, wanted_by: str) -> None:
        if need in resolving:
            raise MissingVariableError(f"{need} is needed for {wanted_by}")
        resolving.add(need)
        try:
            if need not in DERIVATIONS:
                find_offers(need, surveyed, on_levels=on_levels)
            resolve(need, on_levels)
        finally:
            resolving.discard(need)

    resolving: set[str] = set()
    for names, on_levels in ((pressure, True), (surface, False)):
        for name in names:
            resolving.add(name)
            resolve(name, on_levels)
            resolving.discard(name)
    return plan


def fields_of_time_and_place(names: Sequence[str], times: np.ndarray, grid: xr.Dataset) -> xr.Dataset:
    """Return fields that time and place determine, at any times, as ``canonicalise`` would have made them.

    Parameters
    ----------
    names
        Keys of ``DERIVATIONS`` with ``of_time_and_place``.
    times
        datetime64, or cftime objects; any number in any order.
    grid
        Latitude and longitude, as ``weathermill.fields.grids.grid_of`` gives them.

    Returns
    -------
    xarray.Dataset
        (time, latitude, longitude) or (time, y, x), float32, lazy, a time a chunk.
    """
    coords = {name: grid[name] for name in (LATITUDE, LONGITUDE)}
    horizontal = grid[LATITUDE].dims if grid[LATITUDE].ndim == 2 else (LATITUDE, LONGITUDE)
    shape = tuple(grid.sizes[dim] for dim in horizontal)
    pattern = da.zeros((len(times), *shape), chunks=(1, *shape), dtype=np.float32)
    fields = xr.Dataset({"pattern": ((TIME, *horizontal), pattern)}, coords={TIME: (TIME, times), **coords})
    return derive(fields, names, []).drop_vars("pattern")


def derive(
    fields: xr.Dataset, names: Sequence[str], findings: MutableSequence[Finding] | None = None
) -> xr.Dataset:
    """Add derived fields, lazily where the others are lazy.

    Parameters
    ----------
    fields
        Canonical fields with all that is needed.
    names
        Keys of ``DERIVATIONS``, each after those it needs.
    findings
        Where to record what was made.
    """
    for name in names:
        derivation = DERIVATIONS[name]
        made = derivation.make(fields).rename(name)
        convention = convention_for(name)
        made.attrs = {
            "long_name": convention.long_name if convention else derivation.long_name,
            "units": convention.units if convention else derivation.units,
            "comment": f"derived {derivation.note}",
        }
        if convention and convention.standard_name:
            made.attrs["standard_name"] = convention.standard_name
        fields = fields.assign({name: made})
        tell(findings, "info", name, f"derived {derivation.note}")
    return fields
