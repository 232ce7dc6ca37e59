"""What the commands show of an error: ours as it is, the configuration's as one of ours, any other in a few lines."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

from kedro.config import MissingConfigException
from kedro.io import DatasetError
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from weathermill.datasets.local import chain, plain_error
from weathermill.errors import ConfigurationError, DamagedStoreError, ResourceError, WeathermillError
from weathermill.redaction import redact

#: Set to anything, it has every error shown with its traceback.
VARIABLE = "WEATHERMILL_TRACEBACK"
#: Where the traceback of an error that is none of ours is kept, below the current folder.
LOG = Path("weathermill-traceback.log")
_LOST_WORKERS = {
    "KilledWorker",
    "NoValidWorkerError",
    "NoWorkerError",
    "FutureCancelledError",
    "CancelledError",
    "CommClosedError",
}
_FILE_SYSTEMS = {"fsspec", "s3fs", "gcsfs", "adlfs", "aiobotocore", "aiohttp"}
_NODE = "while running node "
_PACKAGE = Path(__file__).resolve().parent


def known_error(error: BaseException) -> WeathermillError | None:
    """Find or make the error of ours that says what lies behind an error; None if it is a surprise.

    What Kedro, OmegaConf and YAML say of a faulty configuration becomes a `ConfigurationError`, and what Dask says of
    workers that it lost a `ResourceError`.
    """
    if (ours := plain_error(error)) is not None:
        return ours
    for link in chain(error):
        if (
            found := _of_configuration(link) or _of_storage(link) or _of_store(link) or _of_cluster(link)
        ) is not None:
            return found
    return None


def _of_configuration(error: BaseException) -> ConfigurationError | None:
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException):
        return _of_environment(text)
    if isinstance(error, MarkedYAMLError) or type(error).__name__ == "ParserError":
        cause = error.__cause__ if isinstance(error.__cause__, MarkedYAMLError) else None
        problem = f": {cause.problem}" if cause is not None and cause.problem else ""
        return ConfigurationError(text + problem)
    if isinstance(error, OmegaConfBaseException):
        if "ListConfig does not support attribute access" in text:
            # Kedro reads globals before anything of ours can look at the files.
            text = "globals.yml holds a list, not names and values"
        return ConfigurationError(text)
    if isinstance(error, DatasetError) and ("parsing config" in text or "arguments valid" in text):
        return ConfigurationError(
            text.partition(" Hint:")[0],
            remedy="Correct that entry in conf/base/catalog.yml or conf/<env>/catalog.yml.",
        )
    if isinstance(error, ValueError) and "kedro" in _raised_in(error).parts:
        return ConfigurationError(text)
    return None


def _of_storage(error: BaseException) -> ConfigurationError | None:
    """Options that a file system does not know; it passes them on until something refuses them."""
    text = " ".join(str(error).split())
    if not isinstance(error, TypeError) or "unexpected keyword argument" not in text:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    if not any(_FILE_SYSTEMS & set(Path(frame.filename).parts) for frame in frames):
        return None
    return ConfigurationError(
        f"an option of storage is unknown: {text}",
        where="raw_fields",
        remedy="Correct `load_args: {storage_options: …}` of the dataset in the catalog.",
    )


def _of_store(error: BaseException) -> DamagedStoreError | None:
    """A chunk that does not have the bytes that it was written with."""
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | RuntimeError) or "zarr" not in _raised_in(error).parts:
        return None
    if not re.search(r"(?i)checksum|decompress", text):
        return None
    return DamagedStoreError(
        f"a chunk of a Zarr store cannot be decoded: {text}",
        remedy="`weathermill verify` names the damaged store and the command that makes it again.",
    )


def _of_cluster(error: BaseException) -> ResourceError | None:
    kind = type(error)
    if kind.__module__.partition(".")[0] != "distributed" or kind.__name__ not in _LOST_WORKERS:
        return None
    said = " ".join(str(error).split())
    return ResourceError(
        f"workers of the Dask cluster died, and what they were at cannot be done: {kind.__name__} {said}",
        remedy="Give each worker more memory, or have fewer (dask.yml, `cluster`); `cluster: null` works in threads.",
    )


def _of_environment(text: str) -> ConfigurationError:
    """Kedro says only that a folder is missing: name the environments that there are."""
    folder = Path(text.rpartition(": ")[2])
    if "valid directory" not in text or not folder.parent.is_dir():
        return ConfigurationError(text)
    there = sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir() and entry.name != "base")
    return ConfigurationError(
        f"there is no environment {folder.name!r}; there are {', '.join(there)}",
        where=str(folder),
        remedy="Choose one of these with --env, or make the folder (docs/data.md, Your own data).",
    )


def _raised_in(error: BaseException) -> Path:
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename) if frames else Path()


def describe(error: BaseException) -> str:
    """Say what went wrong, for a terminal: what, where and what to do, without credentials.

    The traceback of an error that is none of ours is kept in a file, because it would be missed; `VARIABLE` has the
    traceback of every error shown.
    """
    known = known_error(error)
    full = redact("".join(traceback.format_exception(error)))
    if os.environ.get(VARIABLE):
        return full + (f"\n{type(known).__name__}: {known}" if known is not None else "")
    if known is not None:
        return f"{type(known).__name__}: {known}\n({_node(error)}{VARIABLE}=1 shows the traceback)"
    message = redact(str(error)) or "without a message"
    kept = _keep(full)
    return f"{type(error).__name__}: {message}{_place(error)}\n  -> {kept}\n({_node(error)}{VARIABLE}=1 shows it here)"


def note_node(error: BaseException, node: str) -> None:
    """Have `describe` say in which node an error came up."""
    error.add_note(f"{_NODE}{node}")


def _node(error: BaseException) -> str:
    notes = [note for link in chain(error) for note in getattr(link, "__notes__", ())]
    return next((f"in node {note.removeprefix(_NODE)}; " for note in notes if note.startswith(_NODE)), "")


def _place(error: BaseException) -> str:
    """The last line of ours that was being executed."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(_PACKAGE)
    ]
    if not frames:
        return ""
    last = frames[-1]
    return f" [{Path(last.filename).relative_to(_PACKAGE)}, line {last.lineno}]"


def _keep(full: str) -> str:
    surprise = "Weathermill did not foresee this error"
    try:
        LOG.write_text(full, encoding="utf-8")
    except OSError:
        return f"{surprise}; its traceback could not be written to {LOG}."
    return f"{surprise}; its traceback is in {LOG}."


def require_known(names: Iterable[str], known: Collection[str], kind: str, remedy: str | None = None) -> None:
    """Refuse names that are not among the known ones.

    Raises
    ------
    ConfigurationError
        Naming the first unknown one and those that there are.
    """
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"there is no {kind} {name!r}; there are {', '.join(sorted(known))}",
                where=name,
                remedy=remedy,
            )
