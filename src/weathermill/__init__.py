"""From gridded atmospheric data to a trained, verified forecast network."""

from weathermill.esmf.provider import install as _provide_esmpy

__version__ = "0.1.0"

_provide_esmpy()
