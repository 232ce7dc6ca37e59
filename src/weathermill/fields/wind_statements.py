"""What a file says of the axes along which a wind lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from weathermill.fields.vocabulary import ALONG_GRID

_GRID_WORDS = re.compile(
    r"grid[-_ ]?(relative|oriented|aligned|eastward|northward|[xyuv]\b)"
    r"|(relative|parallel|aligned|respect) to (the )?((model|native|rotated|defined|local) )*(grid|axes)"
    r"|along (the )?((model|native|rotated|grid|local|grid's) )*(grid|axes|[xyij]\b)"
    r"|\b[xy][-_ ]?(wind|component|direction|axis)|(rotated|model|native)[- ](grid|pole|axes)|not rotated",
    re.IGNORECASE,
)
_EARTH_WORDS = re.compile(
    r"earth[-_ ]?(relative|rotated|oriented)|(relative|rotated) to (the )?(earth|true|geographic|east|lat)"
    r"|\b(eastward|northward)|(true|geographic(al)?)[- ](east|north|coordinates)",
    re.IGNORECASE,
)
_WRF_NAMES = ("U", "V", "U10", "V10", "U_PL", "V_PL")

# Texts and standard names of one component of a vector.
_COMPONENT = re.compile(
    r"(^|[_ ])([xyuv]|grid_eastward|grid_northward)[-_ ](wind|velocity|stress|transport|current|component)"
    r"|eastward|northward|zonal|meridional",
    re.IGNORECASE,
)
_ALONG_AXES = re.compile(r"(^|_)(x|y|grid_eastward|grid_northward)_(wind|velocity|stress|transport|current)")


def is_component_along_grid(array: xr.DataArray) -> bool:
    """Return whether a field is said to be a component of a vector along the axes of its grid."""
    standard_name = str(array.attrs.get("standard_name", ""))
    if _ALONG_AXES.search(standard_name):
        return True
    texts = (standard_name, *(str(array.attrs.get(key, "")) for key in ("long_name", "description")))
    return any(map(_COMPONENT.search, texts)) and said_axes(array, {}, str(array.name))[0] == "grid"


def said_axes(array: xr.DataArray, attrs: Mapping[str, Any], name: str) -> tuple[str | None, str]:
    """Return along which axes a wind component is said to lie, and what says so.

    GRIB's flag decides where there is one, since its readers name all winds eastward. Else standard name, texts and name
    count together, and WRF's own output is known to lie along its grid.

    Parameters
    ----------
    array
        As the file has it.
    attrs
        Global attributes of the file.
    name
        The file's name for it.

    Returns
    -------
    axes
        ``grid``, ``east_and_north``, ``both`` where the statements contradict one another, or None without any.
    said
        The statements, for messages.
    """
    flag = array.attrs.get("GRIB_uvRelativeToGrid", array.attrs.get("uvRelativeToGrid"))
    components = array.attrs.get("GRIB_resolutionAndComponentFlags")
    if flag is None and components is not None:
        flag = (int(components) >> 3) & 1  # bit 5 of flag table 3.3, counted from the left
    if flag is not None:
        flag = int(np.asarray(flag).reshape(-1)[0])
        return ("grid" if flag else "east_and_north"), f"uvRelativeToGrid = {flag}"
    grid, earth = [], []
    standard_name = str(array.attrs.get("standard_name", ""))
    if standard_name in ALONG_GRID:
        grid.append(f"standard name {standard_name}")
    elif standard_name in ALONG_GRID.values():
        earth.append(f"standard name {standard_name}")
    texts = {key: str(array.attrs.get(key, "")) for key in ("long_name", "description", "comment")}
    for key, text in (texts | {"name": name.replace("_", " ")}).items():
        for words, found in ((_GRID_WORDS, grid), (_EARTH_WORDS, earth)):
            if match := words.search(text):
                found.append(f"{key.replace('_', ' ')} {match[0]!r}")
            text = words.sub(" ", text)
    if grid and earth:
        return "both", f"{', '.join(grid)}, but {', '.join(earth)}"
    if grid or earth:
        return ("grid" if grid else "east_and_north"), ", ".join(grid or earth)
    title = f"{attrs.get('TITLE', '')} {attrs.get('title', '')} {attrs.get('source', '')}"
    if name in _WRF_NAMES and ("WRF" in title or "MAP_PROJ" in attrs):
        return "grid", "WRF's own output"
    return None, ""
