"""Temporary data of a run: all in one folder, which goes with the run; after a crash, with the next run."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import getpass
import logging
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from weathermill.errors import UnwritableOutputError
from weathermill.parameters import validate_parameters

logger = logging.getLogger(__name__)

PREFIX = "weathermill-run-"
_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


class Scratch:
    """The folder for what Python's `tempfile` makes while it is open: archives unpacked, artefacts on their way.

    The folder itself is locked (``flock``), which ends with the process, so that those of dead runs can be told from
    those of living ones and are removed when another is opened.

    Parameters
    ----------
    base
        Where the folder is made; the system's folder for temporary files when None.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = base
        self._before: str | None = None
        self._set_inductor = False
        self._handle: int | None = None
        self.folder: Path | None = None

    def open(self) -> Path:
        """Make the folder, and have `tempfile` use it.

        Raises
        ------
        UnwritableOutputError
            If it cannot be made.
        """
        system = Path(tempfile.gettempdir())
        base = self._base or system
        try:
            base.mkdir(parents=True, exist_ok=True)
            sweep(base)
            while self.folder is None:
                self._make(base)
        except OSError as error:
            raise UnwritableOutputError(
                f"cannot write temporary data: {error.strerror}",
                where=str(base),
                remedy="Make the folder writable, free disk space, or name another: resources.temporary_folder.",
            ) from error
        self._before, tempfile.tempdir = tempfile.tempdir, str(self.folder)
        if _INDUCTOR not in os.environ:
            # What torch compiled is worth keeping; it would be thrown away with the folder.
            name = re.sub(r'[\\/:*?"<>|]', "_", _user())
            os.environ[_INDUCTOR] = str(system / f"torchinductor_{name}")
            self._set_inductor = True
        return self.folder

    def _make(self, base: Path) -> None:
        folder = base / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        # A run that sweeps just now may take it for a dead one's; then there is another.
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if _lock(handle) is not False and folder.exists():
                self._handle, self.folder = handle, folder
            else:
                os.close(handle)

    def close(self) -> None:
        """Remove the folder, and have `tempfile` use what it used before."""
        if self.folder is None:
            return
        folder, self.folder = self.folder, None
        tempfile.tempdir = self._before
        if self._set_inductor:
            os.environ.pop(_INDUCTOR, None)
        shutil.rmtree(folder, ignore_errors=True)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def sweep(base: Path) -> list[Path]:
    """Remove the folders of this user's runs that have ended; return those removed."""
    removed = []
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(handle):
                    shutil.rmtree(folder)
                    removed.append(folder)
            finally:
                os.close(handle)
    if removed:
        logger.info("removed temporary data of killed runs: %d folder(s) in %s", len(removed), base)
    return removed


def _lock(handle: int) -> bool | None:
    """Lock an open folder: True if that was possible, False if another has it, None where folders have no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid_{os.getuid()}"


class ScratchHook:
    """Has temporary data of every run in a folder of its own: before all other hooks, and until after them."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, catalog: DataCatalog) -> None:
        """Make the folder, where the parameters say."""
        self._close()
        atexit.unregister(self._close)
        atexit.register(self._close)
        folder = validate_parameters(catalog.load("parameters")).resources.temporary_folder
        self._scratch = Scratch(Path(folder).expanduser().absolute() if folder else None)
        self._scratch.open()

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Remove it."""
        self._close()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Remove it."""
        self._close()

    def _close(self) -> None:
        self._scratch.close()
