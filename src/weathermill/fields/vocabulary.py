"""The vocabulary of canonical fields: ERA5's long names, with units, aliases and physical limits.

Names are those of ERA5 on the Climate Data Store (WeatherBench and ARCO-ERA5 use the same). GRIB parameter
numbers are those of ECMWF's parameter database, standard names those of the CF conventions, version 85. The
limits are wide: they are to find wrong units and damaged bytes, not remarkable weather.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Kind = Literal["pressure", "surface", "static"]

#: Standard gravity in m s-2 (CODATA), which turns geopotential height into geopotential.
STANDARD_GRAVITY = 9.80665


@dataclass(frozen=True)
class VariableConvention:
    """How one variable is called, measured and bounded.

    Attributes
    ----------
    name
        The canonical name: ERA5's long name.
    units
        Canonical units as a CF string.
    kind
        ``pressure`` (on levels), ``surface`` (two-dimensional, in time) or ``static``.
    standard_name
        CF standard name, or None where there is none.
    long_name
        For axis labels.
    aliases
        Short names by which files call it: GRIB, CDS, CMIP.
    param_id
        ECMWF's GRIB parameter numbers.
    minimum, maximum
        Physical limits in canonical units.
    accumulated
        True for sums over the step that ends at the valid time.
    """

    name: str
    units: str
    kind: Kind
    standard_name: str | None
    long_name: str
    aliases: tuple[str, ...] = field(default=())
    param_id: tuple[int, ...] = field(default=())
    minimum: float = float("-inf")
    maximum: float = float("inf")
    accumulated: bool = False


def _pressure(name, units, standard_name, aliases, param_id, minimum, maximum) -> VariableConvention:
    long_name = name.replace("_", " ").capitalize()
    return VariableConvention(
        name, units, "pressure", standard_name, long_name, aliases, param_id, minimum, maximum
    )


def _surface(
    name, units, standard_name, aliases, param_id, minimum, maximum, accumulated=False
) -> VariableConvention:
    long_name = name.replace("_", " ").replace("2m", "2 m").replace("10m", "10 m")
    return VariableConvention(
        name,
        units,
        "surface",
        standard_name,
        long_name[0].upper() + long_name[1:],
        aliases,
        param_id,
        minimum,
        maximum,
        accumulated,
    )


def _static(name, units, standard_name, aliases, param_id, minimum, maximum) -> VariableConvention:
    long_name = name.replace("_", " ").capitalize()
    return VariableConvention(
        name, units, "static", standard_name, long_name, aliases, param_id, minimum, maximum
    )


# Models call winds along their grids so; weathermill.fields.wind_axes turns them.
_ALONG_X = ("x_wind", "grid_eastward_wind")
_ALONG_Y = ("y_wind", "grid_northward_wind")


def _at_10m(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_10m" for name in names)


_TABLE = (
    _pressure("geopotential", "m2 s-2", "geopotential", ("z", "phi"), (129,), -2.0e4, 6.0e5),
    _pressure(
        "geopotential_height", "m", "geopotential_height", ("gh", "zg", "hgt", "z_gh"), (156,), -2e3, 6e4
    ),
    _pressure("temperature", "K", "air_temperature", ("t", "ta", "temp", "air"), (130,), 120.0, 370.0),
    _pressure(
        "u_component_of_wind", "m s-1", "eastward_wind", ("u", "ua", "uwnd", *_ALONG_X), (131,), -250.0, 250.0
    ),
    _pressure(
        "v_component_of_wind",
        "m s-1",
        "northward_wind",
        ("v", "va", "vwnd", *_ALONG_Y),
        (132,),
        -250.0,
        250.0,
    ),
    _pressure("specific_humidity", "kg kg-1", "specific_humidity", ("q", "hus", "shum"), (133,), -1e-3, 0.06),
    _pressure(
        "relative_humidity", "%", "relative_humidity", ("r", "hur", "rhum", "rh"), (157,), -20.0, 200.0
    ),
    _pressure(
        "vertical_velocity",
        "Pa s-1",
        "lagrangian_tendency_of_air_pressure",
        ("w", "wap", "omega"),
        (135,),
        -100.0,
        100.0,
    ),
    _pressure("vorticity", "s-1", "atmosphere_relative_vorticity", ("vo",), (138,), -0.05, 0.05),
    _pressure("divergence", "s-1", "divergence_of_wind", ("d",), (155,), -0.05, 0.05),
    _pressure("potential_vorticity", "K m2 kg-1 s-1", "ertel_potential_vorticity", ("pv",), (60,), -0.1, 0.1),
    _pressure(
        "ozone_mass_mixing_ratio", "kg kg-1", "mass_fraction_of_ozone_in_air", ("o3",), (203,), -1e-6, 1e-4
    ),
    _pressure(
        "specific_cloud_liquid_water_content",
        "kg kg-1",
        "specific_cloud_liquid_water_content",
        ("clwc", "clw"),
        (246,),
        -1e-5,
        0.05,
    ),
    _pressure(
        "specific_cloud_ice_water_content",
        "kg kg-1",
        "specific_cloud_ice_water_content",
        ("ciwc", "cli"),
        (247,),
        -1e-5,
        0.05,
    ),
    _pressure(
        "fraction_of_cloud_cover",
        "1",
        "cloud_area_fraction_in_atmosphere_layer",
        ("cc", "cl"),
        (248,),
        -0.01,
        1.01,
    ),
    _surface("2m_temperature", "K", "air_temperature", ("t2m", "2t", "tas", "t2"), (167,), 150.0, 350.0),
    _surface(
        "2m_dewpoint_temperature", "K", "dew_point_temperature", ("d2m", "2d", "tdps"), (168,), 120.0, 350.0
    ),
    _surface(
        "10m_u_component_of_wind",
        "m s-1",
        "eastward_wind",
        ("u10", "10u", "uas", "u_10m", *_at_10m(_ALONG_X)),
        (165,),
        -150.0,
        150.0,
    ),
    _surface(
        "10m_v_component_of_wind",
        "m s-1",
        "northward_wind",
        ("v10", "10v", "vas", "v_10m", *_at_10m(_ALONG_Y)),
        (166,),
        -150.0,
        150.0,
    ),
    _surface(
        "100m_u_component_of_wind", "m s-1", "eastward_wind", ("u100", "100u"), (228246,), -200.0, 200.0
    ),
    _surface(
        "100m_v_component_of_wind", "m s-1", "northward_wind", ("v100", "100v"), (228247,), -200.0, 200.0
    ),
    _surface("10m_wind_speed", "m s-1", "wind_speed", ("si10", "10si", "sfcWind"), (207,), -0.1, 200.0),
    _surface(
        "mean_sea_level_pressure",
        "Pa",
        "air_pressure_at_mean_sea_level",
        ("msl", "psl", "mslp", "prmsl"),
        (151,),
        8.0e4,
        1.15e5,
    ),
    _surface("surface_pressure", "Pa", "surface_air_pressure", ("sp", "ps"), (134,), 3.0e4, 1.15e5),
    _surface("sea_surface_temperature", "K", "sea_surface_temperature", ("sst", "tos"), (34,), 260.0, 320.0),
    _surface("skin_temperature", "K", "surface_temperature", ("skt", "ts"), (235,), 150.0, 370.0),
    _surface("sea_ice_cover", "1", "sea_ice_area_fraction", ("siconc", "ci", "sic"), (31,), -0.01, 1.01),
    _surface(
        "total_column_water_vapour",
        "kg m-2",
        "atmosphere_mass_content_of_water_vapor",
        ("tcwv", "prw"),
        (137,),
        -1.0,
        150.0,
    ),
    _surface(
        "total_column_water", "kg m-2", "atmosphere_mass_content_of_water", ("tcw",), (136,), -1.0, 300.0
    ),
    _surface("total_cloud_cover", "1", "cloud_area_fraction", ("tcc", "clt"), (164,), -0.01, 1.01),
    _surface(
        "total_precipitation", "m", "lwe_thickness_of_precipitation_amount", ("tp",), (228,), -1e-3, 2.0, True
    ),
    _surface(
        "total_precipitation_6hr",
        "m",
        "lwe_thickness_of_precipitation_amount",
        ("tp06", "tp_6hr"),
        (),
        -1e-3,
        2.0,
        True,
    ),
    _surface(
        "total_precipitation_24hr",
        "m",
        "lwe_thickness_of_precipitation_amount",
        ("tp24", "tp_24hr"),
        (),
        -1e-3,
        4.0,
        True,
    ),
    _surface("precipitation_flux", "kg m-2 s-1", "precipitation_flux", ("pr", "mtpr"), (235055,), -1e-4, 0.2),
    _surface("snow_depth", "m", "lwe_thickness_of_surface_snow_amount", ("sd",), (141,), -0.01, 50.0),
    _surface(
        "toa_incident_solar_radiation",
        "J m-2",
        "toa_incoming_shortwave_flux_integral",
        ("tisr",),
        (212,),
        -1.0,
        3.2e7,
        True,
    ),
    _surface(
        "surface_solar_radiation_downwards",
        "J m-2",
        "integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air",
        ("ssrd",),
        (169,),
        -1e4,
        3.2e7,
        True,
    ),
    _surface(
        "top_net_thermal_radiation",
        "J m-2",
        "integral_wrt_time_of_toa_outgoing_longwave_flux",
        ("ttr",),
        (179,),
        -1e8,
        1e5,
        True,
    ),
    _static(
        "geopotential_at_surface",
        "m2 s-2",
        "surface_geopotential",
        ("z", "zs", "phis", "z_sfc", "orog_z"),
        (129,),
        -2.0e4,
        9.0e4,
    ),
    _static("orography", "m", "surface_altitude", ("orog", "oro", "topo"), (228002,), -2e3, 9e3),
    _static("land_sea_mask", "1", "land_binary_mask", ("lsm", "sftlf"), (172,), -0.01, 1.01),
    _static("soil_type", "1", "soil_type", ("slt",), (43,), -0.5, 300.0),
    _static("standard_deviation_of_orography", "m", None, ("sdor",), (160,), -1.0, 3e3),
    _static("angle_of_sub_gridscale_orography", "radian", None, ("anor",), (162,), -3.2, 3.2),
    _static("slope_of_sub_gridscale_orography", "1", None, ("slor",), (163,), -0.01, 1.5),
    _static("lake_cover", "1", None, ("cl",), (26,), -0.01, 1.01),
    _static("high_vegetation_cover", "1", None, ("cvh",), (28,), -0.01, 1.01),
    _static("low_vegetation_cover", "1", None, ("cvl",), (27,), -0.01, 1.01),
)

#: Along which axes winds on curvilinear grids lie.
WindAxes = Literal["as_said", "east_and_north", "grid"]

#: Standard names of winds along a grid's axes, which must be turned before they bear the other.
ALONG_GRID: Mapping[str, str] = MappingProxyType(
    {
        "x_wind": "eastward_wind",
        "y_wind": "northward_wind",
        "grid_eastward_wind": "eastward_wind",
        "grid_northward_wind": "northward_wind",
    }
)

#: Canonical name -> convention, in the order of the table.
CONVENTIONS: Mapping[str, VariableConvention] = MappingProxyType({entry.name: entry for entry in _TABLE})

#: The canonical names of coordinates.
AXES = ("time", "level", "latitude", "longitude")

_FLAT = re.compile(r"^(?P<variable>.+?)_(?P<level>\d+(?:\.\d+)?)(?:hPa)?$")


def split_flat_name(name: str) -> tuple[str, float] | None:
    """Split ``geopotential_500`` into ``("geopotential", 500.0)``.

    Returns None where the front part is no pressure-level variable of the vocabulary (by canonical name or
    alias), so that ``total_precipitation_24hr`` and the like stay whole.
    """
    match = _FLAT.match(name)
    if match is None:
        return None
    front = match["variable"]
    for entry in CONVENTIONS.values():
        if entry.kind == "pressure" and (front == entry.name or front.lower() in entry.aliases):
            return entry.name, float(match["level"])
    return None


def name_fault(name: str) -> str | None:
    """Return why a variable cannot be given this name by a user's table, with the nearest names; None where it can.

    Canonical names, names with their level (``geopotential_500``) and the four axes can be given.
    """
    if name in CONVENTIONS or name in AXES:
        return None
    if (parts := split_flat_name(name)) is not None and parts[0] == name.rsplit("_", 1)[0]:
        return None
    near = canonical_for_alias(name) or difflib.get_close_matches(name, [*CONVENTIONS, *AXES], n=3)
    aliases = [alias for entry in CONVENTIONS.values() for alias in entry.aliases]
    for alias in [] if near else difflib.get_close_matches(name.lower(), aliases, n=1, cutoff=0.75):
        near = canonical_for_alias(alias)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(CONVENTIONS)}"
    return f"which is no canonical name; {hint}"


def flat_name(variable: str, level: float | None) -> str:
    """Return the channel name of a variable on a level in hPa: ``geopotential_500``, ``2m_temperature``."""
    return variable if level is None else f"{variable}_{level:g}"


def convention_for(name: str) -> VariableConvention | None:
    """Return the convention of a canonical or flat name, or None for a name outside the vocabulary."""
    entry = CONVENTIONS.get(name)
    if entry is None and (parts := split_flat_name(name)) is not None:
        entry = CONVENTIONS[parts[0]]
    return entry


def canonical_for_alias(name: str, *, on_levels: bool | None = None) -> list[str]:
    """Return the canonical names that a file may mean by ``name``.

    Parameters
    ----------
    name
        A variable name as files use it; the comparison does not heed case.
    on_levels
        True for variables with a pressure level, False for those without, None for both.
    """
    wanted = name.lower()
    found = []
    for entry in CONVENTIONS.values():
        if on_levels is not None and (entry.kind == "pressure") != on_levels:
            continue
        if wanted == entry.name.lower() or wanted in (alias.lower() for alias in entry.aliases):
            found.append(entry.name)
    return found
