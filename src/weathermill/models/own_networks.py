"""Networks of users' own: where they are found by name, and which modules are imported for them.

A model's file names the module that registered its network, so that a message can say which one is missing. It is not
imported for that alone: who can replace a model's file could then have any module imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from weathermill.errors import ModelError

#: Of entry points of installed packages: the name of a network and the builder, or the module that registers it.
GROUP = "weathermill.networks"
#: Of the environment: modules that register networks, with commas between; for processes that read no parameters.
VARIABLE = "WEATHERMILL_NETWORK_MODULES"
_REGISTRY = "weathermill.models.registry"


def import_networks(module: str) -> None:
    """Import a module that registers networks.

    Raises
    ------
    ModelError
        If it cannot be imported.
    """
    try:
        importlib.import_module(module)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"The module {module!r} of an own network cannot be imported: {type(error).__name__}: {error}.",
            where="model.module",
            remedy="Put it where Python finds it: in src/ of the project, in a folder of PYTHONPATH, or installed.",
        ) from error


def import_allowed(name: str) -> Any:
    """Import what entry points and the environment name for a network.

    Parameters
    ----------
    name
        Of the network.

    Returns
    -------
    object
        What the entry point of that name gives: a builder, or the module that registers it; None without one.

    Raises
    ------
    ModelError
        If something cannot be imported.
    """
    for module in allowed_modules():
        import_networks(module)
    point = entry_point(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:
        raise ModelError(
            f"The network {name!r} cannot be loaded from {point.value}: {type(error).__name__}: {error}.",
            where=f"entry point of {GROUP}",
            remedy="Mend or reinstall the package that provides it.",
        ) from error


def allowed_modules() -> list[str]:
    """Modules that the environment allows to be imported."""
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def entry_point(name: str) -> EntryPoint | None:
    """The entry point of an installed package for a network, not loaded; None where there is none."""
    return next(iter(entry_points(group=GROUP, name=name)), None)


def network_modules(name: str | None, module: str | None = None) -> set[str]:
    """Name the modules outside of this package that networks come from; nothing is imported.

    Parameters
    ----------
    name
        Of the network; all that are known when None.
    module
        Which the parameters name.
    """
    found = {module} if module else set()
    found |= set(allowed_modules())
    found |= {point.module for point in entry_points(group=GROUP) if name in (None, point.name)}
    for known, builder in registered().items():
        if name in (None, known):
            found.add(module_of(builder))
    return found - {""}


def registered() -> dict[str, Callable[..., Any]]:
    """Builders by name, as far as they are registered by now; torch is not imported for this."""
    registry = sys.modules.get(_REGISTRY)
    return {} if registry is None else dict(registry._NETWORKS)


def module_of(builder: Callable[..., Any]) -> str:
    """The module that a builder was defined in; empty for those of this package."""
    module = getattr(builder, "__module__", "") or ""
    return "" if module.startswith("weathermill.models.") else module
