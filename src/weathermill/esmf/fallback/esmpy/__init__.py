"""Stands in for ESMPy where none is installed: see `weathermill.esmf`."""

import importlib.util
import sys

try:
    from weathermill.esmf import provider as _provider
except ImportError as _error:
    raise ModuleNotFoundError(
        f"no ESMPy, and its stand-in needs weathermill: {_error}", name="esmpy"
    ) from _error

_real = _provider.find_real("esmpy")
if _real is not None:
    _module = importlib.util.module_from_spec(_real)
    sys.modules["esmpy"] = _module
    _real.loader.exec_module(_module)
elif _provider.find_real("ESMF") is not None:
    raise ModuleNotFoundError("a real ESMPy is installed under its old name, ESMF", name="esmpy")
else:
    from weathermill.esmf import interface as _interface

    _interface.fill(sys.modules["esmpy"])
