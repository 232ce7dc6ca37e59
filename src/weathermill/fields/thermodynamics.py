"""Moisture on pressure levels: saturation, specific and relative humidity, as ECMWF's model defines them."""

from __future__ import annotations

import numpy as np

#: Ratio of the gas constants of dry air and water vapour (IFS Cycle 41r2: 287.0597 / 461.5250).
EPSILON = 287.0597 / 461.5250

_T0 = 273.16
_T_ICE = 250.16


def saturation_vapour_pressure(temperature: np.ndarray) -> np.ndarray:
    r"""Return the saturation vapour pressure in Pa.

    Teten's formula :math:`e = a_1\exp\{a_3 (T - T_0)/(T - a_4)\}` over water (Buck 1981) and ice (AERKi), mixed
    between 250.16 K and 273.16 K by :math:`\alpha = ((T - T_i)/(T_0 - T_i))^2`: IFS Documentation Cy41r2, Part IV,
    equations 7.4 to 7.6 and 12.5. This is how ERA5's relative humidity is defined.

    Parameters
    ----------
    temperature
        K.
    """
    temperature = np.asarray(temperature)
    water = 611.21 * np.exp(17.502 * (temperature - _T0) / (temperature - 32.19))
    ice = 611.21 * np.exp(22.587 * (temperature - _T0) / (temperature + 0.7))
    share = np.clip((temperature - _T_ICE) / (_T0 - _T_ICE), 0.0, 1.0) ** 2
    return share * water + (1.0 - share) * ice


def specific_humidity(
    relative_humidity: np.ndarray, temperature: np.ndarray, pressure: np.ndarray
) -> np.ndarray:
    r"""Return specific humidity in kg kg-1.

    :math:`q = \varepsilon e / (p - (1 - \varepsilon) e)` with :math:`e = r\,e_s(T)`. Vapour pressure is kept between
    zero and the air pressure.

    Parameters
    ----------
    relative_humidity
        Per cent.
    temperature
        K.
    pressure
        Pa.
    """
    vapour = np.clip(0.01 * relative_humidity * saturation_vapour_pressure(temperature), 0.0, pressure)
    return EPSILON * vapour / (pressure - (1.0 - EPSILON) * vapour)


def relative_humidity(specific: np.ndarray, temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    r"""Return relative humidity in per cent: the inverse of :func:`specific_humidity`.

    :math:`e = p q / (\varepsilon + (1 - \varepsilon) q)`.

    Parameters
    ----------
    specific
        Specific humidity in kg kg-1.
    temperature
        K.
    pressure
        Pa.
    """
    vapour = pressure * specific / (EPSILON + (1.0 - EPSILON) * specific)
    return 100.0 * vapour / saturation_vapour_pressure(temperature)
