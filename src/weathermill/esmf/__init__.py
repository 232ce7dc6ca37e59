"""A generator of regridding weights with the interface of ESMPy, in NumPy and Numba.

xESMF makes its weights through ESMPy, which is to be had from conda-forge only. Where it is not installed,
``import esmpy`` finds this package instead (see `weathermill.esmf.provider`), which has the part of the
interface that xESMF uses and makes the weights that ESMF makes.

Importing it is cheap; the kernels are compiled when first used, and cached.
"""

from __future__ import annotations

from weathermill.esmf.provider import PROVIDER, find_real, install, provider_name
from weathermill.esmf.version import ESMPY_INTERFACE, __version__

__all__ = ["ESMPY_INTERFACE", "PROVIDER", "__version__", "find_real", "install", "provider_name"]
