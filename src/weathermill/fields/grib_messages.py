"""The messages of GRIB files, editions 1 and 2: what each one is, and its values when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from weathermill.errors import CoordinateError, UnreadableSourceError
from weathermill.fields.grib_grids import GribGrid, get, read_grid
from weathermill.fields.grib_sections import read_bytes, sections_of, split_fields

_FILL = 1.0e30
_SECONDS = {0: 60, 1: 3600, 2: 86400, 10: 10800, 11: 21600, 12: 43200, 13: 1, 14: 900, 15: 1800, 254: 1}
# Months and years as ecCodes counts them, in days; their true lengths differ.
_SECONDS |= {3: 30 * 86400, 4: 365 * 86400}
# Units of edition 1 that are no number of whole hours (WMO code table 4), as ecCodes's unit to count them in.
_OWN_UNITS = {0: 0, 3: 3, 4: 4, 13: 0, 14: 0, 254: 13}
_CALENDAR_MONTHS = {3: 1, 4: 12}
_ENSEMBLE = ("cf", "pf")
# Statistics of an ensemble, which are no state of the atmosphere: ensemble mean, standard deviation and the like.
_DERIVED = ("em", "es", "ep", "taem", "taes", "ed", "efi", "efic", "sot", "cr", "cs", "cm", "pb", "pd", "fp")


@dataclass(frozen=True)
class FieldKey:
    """What a field is, apart from its time, level, member and the time that it covers.

    Attributes
    ----------
    parameter
        paramId and the numbers that stand in the message, which tell unknown parameters apart.
    name
        ecCodes's short name.
    level_type
        ecCodes's ``typeOfLevel``.
    statistic
        ecCodes's ``stepType``: ``instant``, ``accum``, ``avg``, ``max``, ``min`` …
    product
        ``""`` for analyses and single forecasts, ``ens`` for members of an ensemble; else what the field says of an
        ensemble, such as ``em`` (mean) or ``probability``.
    origin
        Centre, class and stream of the data.
    experiment
        ECMWF's experiment version, or empty.
    """

    parameter: tuple[int, ...]
    name: str
    level_type: str
    statistic: str
    product: str
    origin: tuple[str, ...]
    experiment: str


@dataclass(frozen=True, slots=True)
class Message:
    """One field in a file.

    Attributes
    ----------
    path, offset, length
        Where the message is, in bytes.
    part
        Which of the fields of the message, or -1 where it holds one.
    field, grid
        What it is, and where.
    run
        Reference time: the start of the forecast, or the time of the analysis.
    start, end
        Seconds from ``run`` to the begin and end of the time covered; the same for an instantaneous field.
    valid
        Time at the end of the time covered.
    level
        Value of the level, or those of the top and bottom of a layer.
    number
        Ensemble member.
    analysis
        Whether it is an analysis.
    step
        Of the packing: the smallest difference of two values.
    """

    path: Path
    offset: int
    length: int
    part: int
    field: FieldKey
    grid: GribGrid
    run: np.datetime64
    start: int
    end: int
    valid: np.datetime64
    level: tuple[float, ...]
    number: int
    analysis: bool
    step: float


@dataclass
class FileIndex:
    """All messages of one file; those that cannot be used are counted by the reason why.

    Attributes
    ----------
    messages
        In the order of the file.
    attributes
        Of each kind of field: units, long name and the like.
    unusable
        Reasons with the number of messages.
    """

    messages: list[Message]
    attributes: dict[FieldKey, dict[str, Any]]
    unusable: list[tuple[UnreadableSourceError, int]]


# A file is indexed once in a process, as long as the index is no burden: sources are opened several times in a run.
_indexed: dict[tuple[str, int, int], FileIndex] = {}
_INDEXED_MESSAGES = 500_000
# Grids by their section: those of projected grids are large, and the same in all files of a series.
_grids: dict[bytes, GribGrid] = {}


def index_file(path: Path) -> FileIndex:
    """Return what messages a GRIB file holds; values are not decoded.

    Raises
    ------
    UnreadableSourceError
        Where ecCodes is not installed, or a message is damaged or cut off.
    """
    _require_eccodes(path)
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _indexed:
        for stale in [other for other in _indexed if other[0] == key[0]]:
            del _indexed[stale]
        index = _read_index(path)
        while _indexed and sum(len(i.messages) for i in _indexed.values()) + len(index.messages) > (
            _INDEXED_MESSAGES
        ):
            del _indexed[next(iter(_indexed))]
        _indexed[key] = index
        return index
    return _indexed[key]


def _require_eccodes(path: Path) -> None:
    try:
        import eccodes  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise UnreadableSourceError(
            "this is a GRIB file, and ecCodes is not installed",
            where=str(path),
            remedy="Install the package eccodes (extra grib), or convert the file to NetCDF.",
        ) from error


def _read_index(path: Path) -> FileIndex:
    unusable_grids: dict[bytes, UnreadableSourceError] = {}
    attributes: dict[FieldKey, dict[str, Any]] = {}
    messages: list[Message] = []
    passed_over: Counter[bytes] = Counter()
    known: dict[FieldKey, FieldKey] = {}
    for handle, offset, length, part, grid_section in _fields(path):
        field = _field_key(handle)
        field = known.setdefault(field, field)
        grid_key = grid_section or str(get(handle, "md5GridSection", str, f"{path}:{offset}")).encode()
        if grid_key not in _grids and grid_key not in unusable_grids:
            read = read_grid(handle, path, field.name)
            if isinstance(read, UnreadableSourceError):
                unusable_grids[grid_key] = read
            else:
                _grids[grid_key] = read
        if grid_key in unusable_grids:
            passed_over[grid_key] += 1
            continue
        grid = _grids[grid_key]
        if field not in attributes:
            attributes[field] = _attributes(handle, field, grid)
        messages.append(_message(handle, path, (offset, length, part), field, grid))
    unusable = [(unusable_grids[key], count) for key, count in passed_over.items()]
    if not messages and not unusable:
        raise UnreadableSourceError("the GRIB file holds no message", where=str(path))
    return FileIndex(messages, attributes, unusable)


def _fields(path: Path) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Yield (handle, offset, length, part, grid section) of each field; the handle is released afterwards."""
    import eccodes

    count = 0
    with path.open("rb") as file, path.open("rb") as raw:
        while True:
            try:
                handle = eccodes.codes_grib_new_from_file(file)
            except eccodes.CodesInternalError as error:
                raise UnreadableSourceError(
                    f"message {count + 1} of the GRIB file is damaged or cut off: {error}", where=str(path)
                ) from error
            if handle is None:
                return
            count += 1
            try:
                offset = int(eccodes.codes_get(handle, "offset", int))
                length = int(eccodes.codes_get(handle, "totalLength", int))
                edition = int(eccodes.codes_get(handle, "edition", int))
                sections = list(sections_of(raw, offset, length)) if edition == 2 else []
                if sum(number == 7 for number, _, _ in sections) < 2:
                    grid = next((place for number, *place in sections if number == 3), None)
                    yield handle, offset, length, -1, b"" if grid is None else read_bytes(raw, *grid)
                    continue
            finally:
                eccodes.codes_release(handle)
            for part, single in enumerate(split_fields(read_bytes(raw, offset, length))):
                handle = eccodes.codes_new_from_message(single)
                try:
                    yield handle, offset, length, part, b""
                finally:
                    eccodes.codes_release(handle)


def _field_key(handle: int) -> FieldKey:
    raw = [get(handle, key, int) for key in ("discipline", "parameterCategory", "parameterNumber")]
    if raw[0] is None:
        raw = [get(handle, key, int) for key in ("table2Version", "indicatorOfParameter")]
    name = str(get(handle, "shortName", str, "unknown"))
    if name == "unknown":
        name = "unknown_" + "_".join(str(number) for number in raw)
    stream = str(get(handle, "stream", str, "") or "")
    return FieldKey(
        parameter=(int(get(handle, "paramId", int, 0) or 0), *(int(number or 0) for number in raw)),
        name=name,
        level_type=str(get(handle, "typeOfLevel", str, "unknown")),
        statistic=str(get(handle, "stepType", str, "instant")),
        product=_product(handle),
        # ECMWF's forecasts from 06 and 18 UTC are in a stream of their own.
        origin=(
            str(get(handle, "centre", str, "")),
            str(get(handle, "class", str, "") or ""),
            "oper" if stream == "scda" else stream,
        ),
        experiment=str(get(handle, "expver", str, "") or ""),
    )


def _product(handle: int) -> str:
    template = get(handle, "productDefinitionTemplateNumber", int)
    if template in (5, 9):
        limits = (get(handle, f"{name}Limit", float) for name in ("lower", "upper"))
        return "probability_" + "_".join(f"{limit:g}" for limit in limits if limit is not None)
    if template in (6, 10):
        return f"percentile_{get(handle, 'percentileValue', int, 0)}"
    kind = str(get(handle, "dataType", str, "") or "")
    if template in (2, 3, 4, 12, 13, 14):
        derived = get(handle, "derivedForecast", int, 0)
        return {0: "em", 1: "em", 2: "es", 4: "es"}.get(derived, f"derived_{derived}")
    if kind in _DERIVED:
        return kind
    return "ens" if kind in _ENSEMBLE else ""


def _attributes(handle: int, field: FieldKey, grid: GribGrid) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        "GRIB_shortName": field.name,
        "GRIB_paramId": field.parameter[0],
        "GRIB_typeOfLevel": field.level_type,
        "GRIB_stepType": field.statistic,
        "units": str(get(handle, "units", str, "")),
        "long_name": str(get(handle, "name", str, field.name)),
    }
    if "unknown" in attrs["units"]:
        attrs["units"] = ""
    standard_name = str(get(handle, "cfName", str, "unknown"))
    if standard_name != "unknown":
        attrs["standard_name"] = standard_name
    if attrs["units"] == "m s**-1":
        attrs["GRIB_uvRelativeToGrid"] = int(grid.winds_along_grid)
        # The x axis runs to the east of the projection, in whatever order the points come.
        attrs["GRIB_iScansNegatively"] = int(get(handle, "iScansNegatively", int, 0) or 0)
    return attrs


def _raw_unit(handle: int) -> int:
    """Return the unit of time of a message as it is coded (WMO code table 4, or 4.4), which ecCodes may convert."""
    for key in ("indicatorOfUnitOfTimeRange", "unitOfTimeRange"):
        if (unit := get(handle, key, int)) is not None:
            return int(unit)
    return 1


def _calendar_seconds(run: np.datetime64, step: int, unit: int, path: Path) -> int:
    """Return a step in months or years, given in the seconds that ecCodes takes it for, in those that it has."""
    if step == 0:
        return 0
    count, rest = divmod(step, _SECONDS[unit])
    month = run.astype("datetime64[M]")
    if rest or run - month >= np.timedelta64(28, "D"):
        raise CoordinateError(
            f"a message of the forecast of {run} counts its step in months or years that are not whole",
            where=str(path),
            remedy="Set the step in hours, for example with `grib_set -s stepUnits=1,step=...`.",
        )
    return int(
        ((month + count * _CALENDAR_MONTHS[unit]).astype("datetime64[s]") + (run - month) - run)
        / np.timedelta64(1, "s")
    )


def _message(
    handle: int, path: Path, place: tuple[int, int, int], field: FieldKey, grid: GribGrid
) -> Message:
    import eccodes

    run = _time(int(get(handle, "dataDate", int, 0)), int(get(handle, "dataTime", int, 0)))
    if (own := _OWN_UNITS.get(get(handle, "unitOfTimeRange", int))) is not None:
        # In edition 1 ecCodes counts in hours unless it is told otherwise.
        eccodes.codes_set(handle, "stepUnits", own)
    unit = int(get(handle, "stepUnits", int, 1) or 0)
    start, end = (int(get(handle, key, int, 0) or 0) for key in ("startStep", "endStep"))
    coded = _raw_unit(handle)
    if 5 <= coded <= 7:
        raise CoordinateError(
            f"a message of the forecast of {run} counts its step in decades or longer units", where=str(path)
        )
    if unit in _SECONDS:
        start, end = (step * _SECONDS[unit] for step in (start, end))
    else:
        # A unit that is coded as missing says nothing where the step is zero.
        valid = _time(int(get(handle, "validityDate", int, 0)), int(get(handle, "validityTime", int, 0)))
        start, end = 0, int((valid - run) / np.timedelta64(1, "s"))
    if coded in _CALENDAR_MONTHS:
        start, end = (_calendar_seconds(run, step, coded, path) for step in (start, end))
    valid = run + np.timedelta64(end, "s")
    level = (float(get(handle, "level", float, 0.0) or 0.0),)
    if field.level_type.endswith("Layer"):
        level = tuple(float(get(handle, key, float, 0.0) or 0.0) for key in ("topLevel", "bottomLevel"))
    binary, decimal = (int(get(handle, f"{kind}ScaleFactor", int, 0) or 0) for kind in ("binary", "decimal"))
    packed = bool(get(handle, "bitsPerValue", int, 0))
    return Message(
        path,
        *place,
        field,
        grid,
        run.astype("datetime64[ns]"),
        start,
        end,
        valid.astype("datetime64[ns]"),
        level,
        int(get(handle, "number", int, 0) or 0),
        str(get(handle, "dataType", str, "")) == "an",
        2.0**binary * 10.0**-decimal if packed and binary > -126 else 0.0,
    )


def _time(date: int, clock: int) -> np.datetime64:
    text = f"{date // 10000:04d}-{date // 100 % 100:02d}-{date % 100:02d}"
    return np.datetime64(f"{text}T{clock // 100:02d}:{clock % 100:02d}", "s")


def decode(file: BinaryIO, message: Message) -> np.ndarray:
    """Return (rows, columns) float64 of one message, missing values as NaN.

    Parameters
    ----------
    file
        The file of the message, open to read.

    Raises
    ------
    OSError
        Where the message cannot be decoded.
    """
    import eccodes

    content = read_bytes(file, message.offset, message.length)
    if message.part >= 0:
        content = split_fields(content)[message.part]
    try:
        handle = eccodes.codes_new_from_message(content)
        try:
            eccodes.codes_set(handle, "missingValue", _FILL)
            values = eccodes.codes_get_values(handle)
        finally:
            eccodes.codes_release(handle)
    except eccodes.CodesInternalError as error:
        raise OSError(
            f"the GRIB message at byte {message.offset} of {message.path.name} cannot be decoded: {error}"
        ) from error
    return message.grid.arrange(np.where(values == _FILL, np.nan, values))
