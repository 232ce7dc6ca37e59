"""The names that ``esmpy`` has when this provider answers to it."""

from __future__ import annotations

import sys
import types

from weathermill.esmf import constants, field, grid, locstream, manager, mesh, regrid
from weathermill.esmf.constants import (
    CoordSys,
    ExtrapMethod,
    FileFormat,
    FileMode,
    GridItem,
    LineType,
    LogKind,
    MeshElemType,
    MeshLoc,
    NormType,
    PoleKind,
    PoleMethod,
    Region,
    RegridMethod,
    StaggerLoc,
    TypeKind,
    UnmappedAction,
)
from weathermill.esmf.field import Field
from weathermill.esmf.grid import Grid
from weathermill.esmf.locstream import LocStream
from weathermill.esmf.manager import Manager, local_pet, pet_count
from weathermill.esmf.mesh import Mesh
from weathermill.esmf.provider import PROVIDER
from weathermill.esmf.regrid import Regrid
from weathermill.esmf.version import ESMPY_INTERFACE
from weathermill.esmf.version import __version__ as _own_version

__all__ = [
    "CoordSys",
    "ExtrapMethod",
    "Field",
    "FileFormat",
    "FileMode",
    "Grid",
    "GridItem",
    "LineType",
    "LocStream",
    "LogKind",
    "Manager",
    "Mesh",
    "MeshElemType",
    "MeshLoc",
    "NormType",
    "PoleKind",
    "PoleMethod",
    "Region",
    "Regrid",
    "RegridMethod",
    "StaggerLoc",
    "TypeKind",
    "UnmappedAction",
    "local_pet",
    "pet_count",
]

# Checks for a minimum version must pass, and who prints it must see that this is not ESMF.
__version__ = f"{ESMPY_INTERFACE}+weathermill.{_own_version}"
__provider__ = PROVIDER

_API = {
    "constants": constants,
    "esmpymanager": manager,
    "field": field,
    "grid": grid,
    "locstream": locstream,
    "mesh": mesh,
    "regrid": regrid,
}


def fill(module: types.ModuleType) -> None:
    """Give a module the names of ``esmpy``, and register its submodule ``api``."""
    for name in [*__all__, "__all__", "__version__", "__provider__"]:
        setattr(module, name, globals()[name])
    api = types.ModuleType(f"{module.__name__}.api", "The classes of ESMPy's interface, by module.")
    api.__path__ = []
    for name, part in _API.items():
        setattr(api, name, part)
        sys.modules[f"{api.__name__}.{name}"] = part
    sys.modules[api.__name__] = api
    module.api = api
