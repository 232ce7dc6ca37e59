"""Points of projected and rotated grids: from the numbers of a grid definition to latitudes and longitudes.

Formulas are those of Snyder (1987), Map Projections: A Working Manual, USGS Professional Paper 1395: the Lambert
conformal conic projection (chapter 15), of which the polar stereographic one (chapter 21) is the limit of a cone that
is flat, and the Mercator projection (chapter 7), on a sphere or an ellipsoid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """The figure of the Earth: equatorial radius in m, and eccentricity (0 for a sphere)."""

    radius: float
    eccentricity: float = 0.0

    @classmethod
    def of_axes(cls, major: float, minor: float) -> Figure:
        """Return the ellipsoid of two axes in m."""
        return cls(major, float(np.sqrt(max(0.0, 1.0 - (minor / major) ** 2))))


@dataclass(frozen=True)
class Conic:
    """A conformal conic projection: Lambert's, or the polar stereographic one where ``cone`` is 1 or -1.

    Attributes
    ----------
    figure
        Of the Earth.
    orientation
        Degrees east: the meridian that is parallel to the y axis.
    cone
        Snyder's n (equation 15-8), negative for the southern hemisphere.
    scale
        Snyder's F (equation 15-10).
    """

    figure: Figure
    orientation: float
    cone: float
    scale: float

    def forward(self, latitude: float, longitude: float) -> tuple[float, float]:
        """Return x and y in m from the pole of the projection (equations 14-1, 14-2 and 15-7)."""
        t = float(_t(np.radians(latitude), self.figure.eccentricity))
        rho = self.figure.radius * self.scale * t**self.cone
        theta = self.cone * np.radians((longitude - self.orientation + 180.0) % 360.0 - 180.0)
        return float(rho * np.sin(theta)), float(-rho * np.cos(theta))

    def inverse(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return latitude and longitude in degrees of points in m (equations 14-9 to 14-11 and 15-11)."""
        sign = np.sign(self.cone)
        rho = sign * np.hypot(x, y)
        theta = np.arctan2(sign * x, -sign * y)
        with np.errstate(divide="ignore"):
            t = (rho / (self.figure.radius * self.scale)) ** (1.0 / self.cone)
        latitude = np.degrees(_latitude(t, self.figure.eccentricity))
        return latitude, self.orientation + np.degrees(theta / self.cone)


def lambert(figure: Figure, orientation: float, first: float, second: float) -> Conic:
    """Return Lambert's conformal conic projection with two standard parallels in degrees, which may be equal."""
    phi = np.radians([first, second])
    m, t = _m(phi, figure.eccentricity), _t(phi, figure.eccentricity)
    cone = np.sin(phi[0]) if abs(first - second) < 1e-9 else np.log(m[0] / m[1]) / np.log(t[0] / t[1])
    return Conic(figure, orientation, float(cone), float(m[0] / (cone * t[0] ** cone)))


def polar_stereographic(figure: Figure, orientation: float, true_scale: float, *, south: bool) -> Conic:
    """Return the polar stereographic projection that is true to scale at a latitude in degrees."""
    cone, e = (-1.0 if south else 1.0), figure.eccentricity
    phi = np.radians(abs(true_scale))
    if np.isclose(abs(true_scale), 90.0):
        scale = 2.0 / np.sqrt((1.0 + e) ** (1.0 + e) * (1.0 - e) ** (1.0 - e))
    else:
        scale = float(_m(phi, e) / _t(phi, e))
    return Conic(figure, orientation, cone, cone * scale)


def mercator_latitudes(
    figure: Figure, true_scale: float, first: float, step: float, count: int
) -> np.ndarray:
    """Return (count,) latitudes in degrees of rows ``step`` metres apart at the latitude of true scale.

    Equations 7-7 and 7-9, with y multiplied by the scale of the standard parallel.
    """
    e = figure.eccentricity
    unit = figure.radius * float(_m(np.radians(true_scale), e))
    y = -unit * np.log(_t(np.radians(first), e)) + step * np.arange(count)
    return np.degrees(_latitude(np.exp(-y / unit), e))


def rotated(
    latitude: np.ndarray, longitude: np.ndarray, south_pole: tuple[float, float], angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the geographical coordinates of points of a rotated grid, all in degrees.

    Parameters
    ----------
    latitude, longitude
        Of the same shape, in the rotated system.
    south_pole
        Geographical latitude and longitude of the rotated system's south pole (WMO Manual on Codes, grid definition
        template 3.1).
    angle
        Rotation about the new polar axis, subtracted from the rotated longitudes.
    """
    phi, lam = np.radians(latitude), np.radians(np.asarray(longitude) - angle)
    # The new system is the old one turned by the latitude of the pole about its own y axis, then by its longitude.
    tilt = np.radians(90.0 + south_pole[0])
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    x_old = np.cos(tilt) * x - np.sin(tilt) * z
    z_old = np.sin(tilt) * x + np.cos(tilt) * z
    return np.degrees(np.arcsin(np.clip(z_old, -1.0, 1.0))), south_pole[1] + np.degrees(np.arctan2(y, x_old))


def _m(phi: np.ndarray | float, e: float) -> np.ndarray:
    """Snyder's equation 14-15."""
    return np.cos(phi) / np.sqrt(1.0 - (e * np.sin(phi)) ** 2)


def _t(phi: np.ndarray | float, e: float) -> np.ndarray:
    """Snyder's equation 15-9."""
    s = e * np.sin(phi)
    return np.tan(np.pi / 4.0 - np.asarray(phi) / 2.0) / ((1.0 - s) / (1.0 + s)) ** (e / 2.0)


def _latitude(t: np.ndarray, e: float) -> np.ndarray:
    """Invert :func:`_t` by iteration (equation 7-9), which gains about two digits a step."""
    phi = np.pi / 2.0 - 2.0 * np.arctan(t)
    for _ in range(8 if e else 0):
        s = e * np.sin(phi)
        phi = np.pi / 2.0 - 2.0 * np.arctan(t * ((1.0 - s) / (1.0 + s)) ** (e / 2.0))
    return phi
