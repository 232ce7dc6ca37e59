"""How ``import esmpy`` finds this provider when, and only when, no real ESMPy is installed.

The directory ``fallback`` beside this file holds a package ``esmpy`` and stands at the very end of
``sys.path``, behind everything else. Two ways lead there: `install`, which ``import weathermill`` calls, and a
line in ``weathermill_esmpy.pth``, which installing the distribution puts beside the package. Children that
multiprocessing or Dask spawn inherit the parent's ``sys.path``. The package, once imported, first looks for a
real ESMPy anywhere else, so that the order of the path does not matter.
"""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

from weathermill.esmf.version import ESMPY_INTERFACE, __version__

PROVIDER = f"weathermill.esmf {__version__} (interface of ESMPy {ESMPY_INTERFACE})"
FALLBACK = str(Path(__file__).resolve().parent / "fallback")


def _same_directory(entry: str) -> bool:
    return entry == FALLBACK or (entry.rstrip("/\\").endswith("fallback") and Path(entry) == Path(FALLBACK))


def _stands_in(directory: str) -> bool:
    # Of another copy of Weathermill, too: two of them would send each other to find the real one for ever.
    return _same_directory(directory) or Path(directory).parts[-3:] == Path(FALLBACK).parts[-3:]


def install() -> None:
    """Make ``import esmpy`` find this provider if nothing else answers to that name.

    Cheap, compiles nothing, and can be called any number of times.
    """
    if not any(_same_directory(entry) for entry in sys.path):
        sys.path.append(FALLBACK)


def find_real(name: str = "esmpy"):
    """Find a real ESMPy: a package of that name that is not this provider.

    Parameters
    ----------
    name : str, optional
        ``esmpy``, or ``ESMF``, as it was called before version 8.4.

    Returns
    -------
    importlib.machinery.ModuleSpec or None
    """
    path = [entry for entry in sys.path if not _stands_in(entry)]
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None:
            continue
        if finder is importlib.machinery.PathFinder:
            spec = finder.find_spec(name, path)
        else:
            spec = find_spec(name, None)
        # A directory without __init__ that happens to bear the name is no ESMPy.
        if spec is None or spec.origin is None or spec.loader is None:
            continue
        if _stands_in(str(Path(spec.origin).resolve().parent.parent)):
            continue
        return spec
    return None


def provider_name() -> str:
    """Say which ESMPy makes weights: this provider, or a real ESMPy with its version.

    Returns
    -------
    str
    """
    install()
    import esmpy

    return getattr(esmpy, "__provider__", f"ESMPy {getattr(esmpy, '__version__', 'of unknown version')}")
