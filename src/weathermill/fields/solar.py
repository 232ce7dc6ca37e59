"""The sun over a place at a time: zenith angle, insolation at the top of the atmosphere, local time.

Positions follow the low-precision formulas of the Astronomical Almanac (good to 0.01 degrees between 1950 and
2050). Calendars other than the usual one place the sun by the fraction of their year.
"""

from __future__ import annotations

import numpy as np

#: Total solar irradiance at one astronomical unit, W m-2 (Kopp and Lean 2011).
SOLAR_CONSTANT = 1360.8

_TROPICAL_YEAR = 365.2422


def days_since_2000(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return days since 2000-01-01T12:00 as the sun's place needs them, and the hour of the day.

    Parameters
    ----------
    times
        datetime64, or cftime objects of any calendar: their years are stretched to tropical ones.

    Returns
    -------
    days, hours
        float64 arrays.
    """
    times = np.atleast_1d(times)
    if np.issubdtype(times.dtype, np.datetime64):
        seconds = times.astype("datetime64[ns]").astype(np.int64) / 1e9
        days = seconds / 86400.0 - 10957.5
        return days, (seconds % 86400.0) / 3600.0
    import cftime

    days, hours = np.empty(times.size), np.empty(times.size)
    for i, time in enumerate(times):
        start = cftime.datetime(time.year, 1, 1, calendar=time.calendar)
        stop = cftime.datetime(time.year + 1, 1, 1, calendar=time.calendar)
        fraction = (time - start) / (stop - start)
        days[i] = _TROPICAL_YEAR * fraction - 0.5
        hours[i] = time.hour + time.minute / 60.0 + time.second / 3600.0
    return days, hours


def solar_position(days: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return declination (radians), equation of time (hours) and distance (astronomical units).

    Parameters
    ----------
    days
        Since 2000-01-01T12:00.
    """
    longitude = np.radians((280.460 + 0.9856474 * days) % 360.0)
    anomaly = np.radians((357.528 + 0.9856003 * days) % 360.0)
    ecliptic = longitude + np.radians(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    obliquity = np.radians(23.439 - 0.0000004 * days)
    declination = np.arcsin(np.sin(obliquity) * np.sin(ecliptic))
    ascension = np.arctan2(np.cos(obliquity) * np.sin(ecliptic), np.cos(ecliptic))
    difference = (longitude - ascension + np.pi) % (2 * np.pi) - np.pi
    distance = 1.00014 - 0.01671 * np.cos(anomaly) - 0.00014 * np.cos(2 * anomaly)
    return declination, np.degrees(difference) / 15.0, distance


def places(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes that broadcast to maps: those of a grid's axes, or maps as they are."""
    latitude, longitude = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    return (latitude, longitude) if latitude.ndim == 2 else (latitude[:, None], longitude[None, :])


def cosine_zenith(
    days: np.ndarray, hours: np.ndarray, latitude: np.ndarray, longitude: np.ndarray
) -> np.ndarray:
    """Return the cosine of the solar zenith angle, negative at night.

    Parameters
    ----------
    days, hours
        (time,) from :func:`days_since_2000`.
    latitude, longitude
        Degrees; one-dimensional, or maps.

    Returns
    -------
    numpy.ndarray
        (time, latitude, longitude) float64.
    """
    declination, equation, _ = solar_position(days)
    latitude, longitude = places(latitude, longitude)
    phi = np.radians(latitude)
    angle = np.radians(15.0 * (hours + equation - 12.0)[:, None, None] + longitude)
    delta = declination[:, None, None]
    return np.sin(phi) * np.sin(delta) + np.cos(phi) * np.cos(delta) * np.cos(angle)


def toa_insolation(
    times: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, *, hours: float = 1.0, parts: int = 12
) -> np.ndarray:
    """Return the solar energy that reaches the top of the atmosphere in the hours before each time, in J m-2.

    ERA5's ``toa_incident_solar_radiation`` is the sum over the hour before the valid time.

    Parameters
    ----------
    times
        (time,).
    latitude, longitude
        Degrees; one-dimensional, or maps.
    hours
        Length of the sum.
    parts
        Midpoints that the sum is made of.

    Returns
    -------
    numpy.ndarray
        (time, latitude, longitude) float64.
    """
    days, clock = days_since_2000(times)
    latitude, longitude = places(latitude, longitude)
    total = np.zeros((days.size, *np.broadcast_shapes(latitude.shape, longitude.shape)))
    for i in range(parts):
        back = hours * (i + 0.5) / parts
        _, _, distance = solar_position(days - back / 24.0)
        cosine = cosine_zenith(days - back / 24.0, clock - back, latitude, longitude)
        total += np.clip(cosine, 0.0, None) / distance[:, None, None] ** 2
    return total * SOLAR_CONSTANT * hours * 3600.0 / parts
