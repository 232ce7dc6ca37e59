"""Synthetic weather: balanced, evolving random fields on the sphere with the mean state of an atmosphere.

Not a simulation of anything: Gaussian stream functions drift eastwards and decorrelate, temperature follows hydrostatically
and wind geostrophically, humidity from a relative humidity. Names, units, ranges, gradients and scales are those of ERA5, so
that a pipeline meets at full size what it will meet in real data, without a download. One step is made at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

RADIUS = 6.371e6
ROTATION = 7.292e-5
GAS_CONSTANT = 287.06
GRAVITY = 9.80665
STEP_HOURS = 6.0

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""The thirteen levels of WeatherBench 2, hPa."""

LEVEL_VARIABLES = {
    "geopotential": "m**2 s**-2",
    "temperature": "K",
    "u_component_of_wind": "m s**-1",
    "v_component_of_wind": "m s**-1",
    "specific_humidity": "kg kg**-1",
}
SURFACE_VARIABLES = {
    "2m_temperature": "K",
    "10m_u_component_of_wind": "m s**-1",
    "10m_v_component_of_wind": "m s**-1",
    "mean_sea_level_pressure": "Pa",
    "surface_pressure": "Pa",
    "2m_dewpoint_temperature": "K",
    "total_column_water_vapour": "kg m**-2",
    "total_cloud_cover": "(0 - 1)",
    "sea_surface_temperature": "K",
}
STATIC_VARIABLES = {"geopotential_at_surface": "m**2 s**-2", "land_sea_mask": "(0 - 1)"}


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes, descending, and longitudes from 0: an odd number of rows has the poles, an even one straddles them."""
    if rows < 3 or columns < 4:
        raise ValueError(f"{rows}x{columns}: a global grid needs at least 3 rows and 4 columns")
    if rows % 2:
        return np.linspace(90.0, -90.0, rows), np.arange(columns) * (360.0 / columns)
    spacing = 180.0 / rows
    return 90.0 - spacing * (np.arange(rows) + 0.5), np.arange(columns) * (360.0 / columns)


def legendre(latitude: np.ndarray, truncation: int) -> np.ndarray:
    """Associated Legendre functions with unit mean square on the sphere, (order m, degree l, latitude), zero for l < m.

    The usual three-term recurrence of the fully normalised functions (e.g. Holmes and Featherstone 2002).
    """
    sine, cosine = np.sin(np.deg2rad(latitude)), np.cos(np.deg2rad(latitude))
    table = np.zeros((truncation + 1, truncation + 1, len(latitude)))
    table[0, 0] = 1.0
    for m in range(1, truncation + 1):
        table[m, m] = np.sqrt((2 * m + 1) / (2 * m)) * cosine * table[m - 1, m - 1]
    for m in range(truncation):
        table[m, m + 1] = np.sqrt(2 * m + 3) * sine * table[m, m]
        for degree in range(m + 2, truncation + 1):
            a = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
            b = np.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
            table[m, degree] = a * (sine * table[m, degree - 1] - b * table[m, degree - 2])
    return table


class SphericalNoise:
    """Evolving Gaussian fields of unit variance on a grid, band-limited, as sums of spherical harmonics.

    Parameters
    ----------
    latitude, longitude : ndarray
        Degrees.
    truncation : int
        Highest degree.
    peak : float
        Degree around which the variance gathers.
    """

    def __init__(
        self, latitude: np.ndarray, longitude: np.ndarray, *, truncation: int = 40, peak: float = 8.0
    ) -> None:
        truncation = min(truncation, max(4, len(latitude) // 2 - 1))
        self.table = legendre(latitude, truncation)
        orders = np.arange(truncation + 1)
        self.orders = orders
        self.degrees = orders[None, :] + 0 * orders[:, None]
        self.waves = np.exp(1j * np.outer(orders, np.deg2rad(longitude)))
        spectrum = orders**2 * (1.0 + (orders / peak) ** 2) ** -3.0
        # Unit variance: a degree's share is spread over its 2 l + 1 real functions.
        self.amplitude = np.sqrt(spectrum / spectrum.sum() / (2 * orders + 1))[None, :] * (
            orders[None, :] >= orders[:, None]
        )
        self.poleward = np.gradient(self.table, np.deg2rad(latitude), axis=-1)
        self.cosine = np.cos(np.deg2rad(np.clip(latitude, -89.9, 89.9)))

    def coefficients(self, generator: np.random.Generator) -> np.ndarray:
        """Draw the coefficients (m, l) of one field."""
        shape = self.amplitude.shape
        draw = np.sqrt(2.0) * (generator.standard_normal(shape) + 1j * generator.standard_normal(shape))
        draw[0] = generator.standard_normal(shape[1])
        return self.amplitude * draw

    def advance(self, coefficients: np.ndarray, generator: np.random.Generator, memory: float) -> np.ndarray:
        """Take one step: drift eastwards as Rossby waves in a westerly flow do, and forget a little."""
        degree = np.maximum(self.degrees, 1)
        rate = 15.0 / RADIUS - 2.0 * ROTATION / (degree * (degree + 1))
        phase = np.exp(-1j * self.orders[:, None] * rate * STEP_HOURS * 3600.0)
        return memory * phase * coefficients + np.sqrt(1.0 - memory**2) * self.coefficients(generator)

    def field(self, coefficients: np.ndarray) -> np.ndarray:
        """Values (latitude, longitude)."""
        return self._synthesise(np.einsum("ml,mlj->jm", coefficients, self.table))

    def gradient(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Eastward and northward derivative per radian of arc, (latitude, longitude) each."""
        eastward = (
            np.einsum("ml,mlj->jm", 1j * self.orders[:, None] * coefficients, self.table)
            / self.cosine[:, None]
        )
        return self._synthesise(eastward), self._synthesise(
            np.einsum("ml,mlj->jm", coefficients, self.poleward)
        )

    def _synthesise(self, by_order: np.ndarray) -> np.ndarray:
        return by_order.real @ self.waves.real - by_order.imag @ self.waves.imag


def standard_temperature(pressure: np.ndarray) -> np.ndarray:
    """Temperature of the ICAO standard atmosphere up to 20 km (K) at a pressure in Pa."""
    return np.maximum(288.15 * (pressure / 101_325.0) ** (GAS_CONSTANT * 0.0065 / GRAVITY), 216.65)


def standard_geopotential(pressure: np.ndarray) -> np.ndarray:
    """Geopotential of the ICAO standard atmosphere up to 20 km (m2 s-2) at a pressure in Pa."""
    troposphere = (
        GRAVITY * 288.15 / 0.0065 * (1.0 - (pressure / 101_325.0) ** (GAS_CONSTANT * 0.0065 / GRAVITY))
    )
    stratosphere = GRAVITY * 11_000.0 + GAS_CONSTANT * 216.65 * np.log(22_632.0 / pressure)
    return np.where(pressure > 22_632.0, troposphere, stratosphere)


def saturation_pressure(temperature: np.ndarray) -> np.ndarray:
    """Saturation vapour pressure over water, Pa (Bolton 1980, equation 10); temperature in K."""
    celsius = temperature - 273.15
    return 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))


def _integral(values: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Trapezoidal integral over the first axis (``numpy.trapezoid`` is NumPy 2's)."""
    layers = np.diff(pressure)[:, None, None]
    return (0.5 * (values[1:] + values[:-1]) * layers).sum(axis=0)


class SyntheticWeather:
    """An endless series of states.

    Parameters
    ----------
    latitude, longitude : ndarray
        Degrees, see `grid`.
    levels : sequence of float
        hPa, ascending.
    seed : int
        Same seed, same weather, on whatever grid.
    """

    def __init__(self, latitude, longitude, levels: Sequence[float] = LEVELS, *, seed: int = 0) -> None:
        self.latitude, self.longitude = np.asarray(latitude), np.asarray(longitude)
        self.pressure = 100.0 * np.asarray(levels, dtype=np.float64)
        self.seed = seed
        self.noise = SphericalNoise(self.latitude, self.longitude)
        self.coriolis = 2.0 * ROTATION * np.sin(np.deg2rad(self.latitude))[:, None]
        self._mean_state()
        self._surface()

    def _mean_state(self) -> None:
        """Zonal means: two westerly jets at 45 degrees and 200 hPa, geopotential and temperature in balance with them."""
        height = np.log(self.pressure / 20_000.0)
        self.jet = 32.0 * np.exp(-((height / 1.2) ** 2))
        self.jet_shear = self.jet * (-2.0 * height / 1.44)
        fine = np.deg2rad(np.linspace(-90.0, 90.0, 2001))
        # Integral of -f u a over latitude from the equator, for a jet of 1 m s-1.
        integrand = -2.0 * ROTATION * np.sin(fine) * np.sin(2.0 * fine) ** 2 * RADIUS
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (integrand[1:] + integrand[:-1]) * np.diff(fine))])
        self.balance = np.interp(np.deg2rad(self.latitude), fine, integral - np.interp(0.0, fine, integral))
        weights = np.cos(np.deg2rad(self.latitude))
        self.balance -= np.sum(self.balance * weights) / weights.sum()
        self.jet_shape = np.sin(2.0 * np.deg2rad(self.latitude)) ** 2

    def _surface(self) -> None:
        generator = np.random.default_rng([self.seed, 1])
        terrain = self.noise.field(self.noise.coefficients(generator))
        self.land = np.clip(2.0 * (terrain - 0.3) + 0.5, 0.0, 1.0)
        self.surface_geopotential = GRAVITY * 550.0 * np.maximum(terrain - 0.5, 0.0) ** 1.3

    def static(self) -> dict[str, np.ndarray]:
        """Fields (latitude, longitude) that do not change, float32."""
        return {
            "geopotential_at_surface": self.surface_geopotential.astype(np.float32),
            "land_sea_mask": self.land.astype(np.float32),
        }

    def states(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield states six hours apart: float32 (level, latitude, longitude) and (latitude, longitude) by long name."""
        generator = np.random.default_rng([self.seed, 2])
        memory = {"barotropic": 0.97, "baroclinic": 0.95, "humidity": 0.93, "cloud": 0.8}
        patterns = {name: self.noise.coefficients(generator) for name in memory}
        while True:
            yield self._state(patterns)
            patterns = {name: self.noise.advance(patterns[name], generator, memory[name]) for name in memory}

    def _state(self, patterns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        height = np.log(self.pressure / 25_000.0)
        envelope = np.exp(-((height / 1.2) ** 2))
        # Two vertical structures of the stream function, and their derivatives in ln p for the temperature.
        profiles = {"barotropic": 0.5 + 0.7 * envelope, "baroclinic": 0.5 * np.tanh(-(height - 0.7))}
        slopes = {
            "barotropic": 0.7 * envelope * (-2.0 * height / 1.44),
            "baroclinic": -0.5 / np.cosh(height - 0.7) ** 2,
        }
        shape = (len(self.pressure), len(self.latitude), len(self.longitude))
        state = {name: np.empty(shape, dtype=np.float32) for name in LEVEL_VARIABLES}
        scale = 0.7e7
        stream = {name: scale * self.noise.field(patterns[name]) for name in profiles}
        slope = {
            name: [scale * part / RADIUS for part in self.noise.gradient(patterns[name])] for name in profiles
        }
        moisture = self.noise.field(patterns["humidity"])
        for k, pressure in enumerate(self.pressure):
            psi = sum(profiles[name][k] * stream[name] for name in profiles)
            thickness = sum(slopes[name][k] * stream[name] for name in profiles)
            state["geopotential"][k] = (
                standard_geopotential(pressure) + self.jet[k] * self.balance[:, None] + self.coriolis * psi
            )
            temperature = standard_temperature(pressure) + 4.0 * np.exp(
                -((np.log(pressure / 6e4) / 0.9) ** 2)
            )
            temperature = (
                temperature
                - (self.jet_shear[k] * self.balance[:, None] + self.coriolis * thickness) / GAS_CONSTANT
            )
            state["temperature"][k] = temperature
            east, north = (sum(profiles[name][k] * slope[name][axis] for name in profiles) for axis in (0, 1))
            state["u_component_of_wind"][k] = self.jet[k] * self.jet_shape[:, None] - north
            state["v_component_of_wind"][k] = east
            relative = np.clip((0.75 * (pressure / 1e5) ** 0.6) * (1.0 + 0.35 * moisture), 0.02, 1.0)
            vapour = np.minimum(
                relative * saturation_pressure(np.minimum(temperature, 303.0)), 0.2 * pressure
            )
            humid = 0.622 * vapour / (pressure - 0.378 * vapour)
            # The stratosphere is as dry as its coldest point: a few parts per million.
            state["specific_humidity"][k] = np.where(pressure < 1.2e4, 2.5e-6 * (1.0 + 0.1 * moisture), humid)
        state.update(self._surface_state(state, patterns))
        return state

    def _surface_state(
        self, state: dict[str, np.ndarray], patterns: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        lowest = {name: state[name][-1].astype(np.float64) for name in LEVEL_VARIABLES}
        pressure = self.pressure[-1]
        warm = lowest["temperature"] + 0.0065 * lowest["geopotential"] / GRAVITY
        sea_level = pressure * np.exp(lowest["geopotential"] / (GAS_CONSTANT * warm))
        skin = warm - 0.0065 * self.surface_geopotential / GRAVITY
        surface = sea_level * np.exp(-self.surface_geopotential / (GAS_CONSTANT * 0.5 * (warm + skin)))
        relative = np.clip(0.75 + 0.12 * self.noise.field(patterns["humidity"]), 0.1, 1.0)
        vapour = np.log(relative * saturation_pressure(skin) / 611.2)
        dewpoint = 273.15 + 243.5 * vapour / (17.67 - vapour)
        column = _integral(state["specific_humidity"], self.pressure) / GRAVITY
        cloud = 1.0 / (1.0 + np.exp(-2.5 * self.noise.field(patterns["cloud"]) - 0.6))
        sea = np.maximum(warm + 1.0, 271.4)
        fields = {
            "2m_temperature": skin,
            "10m_u_component_of_wind": 0.7 * lowest["u_component_of_wind"],
            "10m_v_component_of_wind": 0.7 * lowest["v_component_of_wind"],
            "mean_sea_level_pressure": sea_level,
            "surface_pressure": surface,
            "2m_dewpoint_temperature": dewpoint,
            "total_column_water_vapour": column,
            "total_cloud_cover": cloud,
            "sea_surface_temperature": np.where(self.land > 0.5, np.nan, sea),
        }
        return {name: values.astype(np.float32) for name, values in fields.items()}
