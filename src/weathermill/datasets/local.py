"""What all datasets that live in one local file or folder share: a path, atomic replacement, plain errors."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from weathermill.errors import DamagedStoreError, StoreError, UnwritableOutputError, WeathermillError
from weathermill.incremental.records import fault_of, record_path, remove_record, stored_record


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Put ``source`` in the place of ``target``; what stood there is removed only once the new one stands.

    The record of what stood is withdrawn just before. Where the replacement fails, what stood is there again with it.
    """
    aside = target.with_name(target.name + ".replaced")
    remove(aside)
    try:
        record = record_path(target).read_bytes()
    except FileNotFoundError:
        record = None
    remove_record(target)
    try:
        if target.exists() and (source.is_dir() or target.is_dir()):
            target.rename(aside)
        source.replace(target)
    except OSError:
        if aside.exists() and not target.exists():
            aside.rename(target)
        if record is not None:
            record_path(target).write_bytes(record)
        raise
    remove(aside)


def sync(path: Path) -> None:
    """Have the disk hold a file, or all files in a folder, so that a power cut after a rename loses nothing."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one plain error that names the output.

    Raises
    ------
    UnwritableOutputError
        If permission is missing, the file system is read-only or the disk is full.
    """
    try:
        yield
    except WeathermillError:
        raise
    except Exception as error:
        # Other datasets, and libraries, wrap what the system said.
        refusal = next((link for link in chain(error) if _is_refusal(link)), None)
        if refusal is None:
            raise
        raise UnwritableOutputError(
            f"cannot write: {os.strerror(refusal.errno)}", where=str(refusal.filename or path)
        ) from error


_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
}


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _REFUSALS


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` to write to, and rename it to ``target`` only if all went well.

    A left-over of a killed run under the temporary name is removed first; on an error nothing is left under either.

    Raises
    ------
    UnwritableOutputError
        If the operating system refuses to write there.
    """
    partial = target.with_name(target.name + ".partial")
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        try:
            yield partial
            sync(partial)
            replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(partial)
            raise


def require_intact(path: Path, *, checksums: bool = False) -> None:
    """Compare an output with its record, if it has one: names and sizes of files, on request every byte.

    Raises
    ------
    DamagedStoreError
        If they differ; names the file.
    """
    record = stored_record(path)
    fault = fault_of(path, record, checksums=checksums) if record is not None else ""
    if record is not None and fault:
        raise DamagedStoreError(
            fault,
            where=str(path),
            remedy=f"Run `kedro run --params force={record.node}`, which makes it again; or, if the change is meant, "
            f"delete {record_path(path).name} beside it.",
        )


class LocalDataset(AbstractDataset):
    """A dataset in one local file or folder.

    ``save`` must leave what stands, and its record, until the new data are whole; `staged` and `replace` do so.

    Parameters
    ----------
    filepath
        Where it is; Kedro resolves it against the project.
    load_args, save_args
        Of the concrete type.
    metadata
        Free metadata, ignored by Kedro.
    """

    def __init__(
        self,
        *,
        filepath: str,
        load_args: dict[str, Any] | None = None,
        save_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._load_args = dict(load_args or {})
        self._save_args = dict(save_args or {})
        self.metadata = metadata

    @property
    def path(self) -> Path:
        """Where the dataset is."""
        return self._filepath

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "load_args": self._load_args, "save_args": self._save_args}

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _require(self, made_by: str) -> Path:
        if not self._filepath.exists():
            raise StoreError(
                "does not exist yet",
                where=str(self._filepath),
                remedy=f"Run `kedro run --pipelines={made_by}` first.",
            )
        require_intact(self._filepath)
        return self._filepath


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that lie behind it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def plain_error(error: BaseException) -> WeathermillError | None:
    """Find the error of ours that lies behind what Kedro raised, if there is one."""
    return next((link for link in chain(error) if isinstance(link, WeathermillError)), None)
