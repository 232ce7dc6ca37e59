"""A small project, and runs of it in forked children that need not import anything any more."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr
from omegaconf import OmegaConf

SOURCE = Path(__file__).resolve().parents[2]

SMALL: dict[str, Any] = {
    "ingest": {
        "variables": ["geopotential", "temperature"],
        "levels": [500, 850],
        "surface_variables": ["2m_temperature"],
    },
    "regrid": {"target": "11x20_poles"},
    "model": {"base_channels": 4, "depth": 2},
    "train": {"epochs": 3, "batch_size": 8, "deterministic": True, "checkpoint_every_steps": 2},
    "evaluate": {
        "lead_time_hours": 12,
        "headline_channels": ["geopotential_500"],
        "map_channels": ["geopotential_500"],
        "map_lead_times_hours": [12],
        "bootstrap_samples": 20,
        "stability_days": None,
    },
    "forecast": {"lead_time_hours": 12},
    "resources": {"disk_check": False},
}

#: What has the same bytes whenever it is made; of NetCDF files the values are compared.
TIMELESS = {".nc", ".csv", ".txt", ".safetensors"}
LEFT_OVERS = (".partial", ".replaced", ".lock", ".previous")
MODULES = "modules.txt"


class Project:
    """A small project in a folder of its own.

    Parameters
    ----------
    path
        The folder; made.
    steps
        Six-hourly states of the sample to use.
    """

    def __init__(self, path: Path, steps: int = 40) -> None:
        self.path = path
        self.data = path / "data"
        self.temporary = path / "tmp"
        self.log = path / "run.log"
        (self.data / "01_raw").mkdir(parents=True)
        (path / "src").mkdir()
        shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
        (path / "conf" / "local").mkdir()
        shutil.copy(SOURCE / "pyproject.toml", path)
        (path / ".telemetry").write_text("consent: false\n", encoding="utf-8")
        self.configure()
        with xr.open_dataset(SOURCE / "data" / "01_raw" / "speedy_t21_sample.nc") as sample:
            sample.isel(valid_time=slice(0, steps)).load().to_netcdf(
                self.data / "01_raw" / "speedy_t21_sample.nc"
            )
        self.sample = path / "sample.nc"
        shutil.copy2(self.data / "01_raw" / "speedy_t21_sample.nc", self.sample)

    def configure(
        self,
        tracking: dict[str, Any] | None = None,
        dask: dict[str, Any] | None = None,
        environment: str = "sample",
        **parameters: Any,
    ) -> None:
        """Write ``conf/<environment>``: the settings of the shipped sample, with small ones instead of them."""
        folder = self.path / "conf" / environment
        folder.mkdir(exist_ok=True)
        shipped = SOURCE / "conf" / "sample"
        files = {
            "parameters.yml": OmegaConf.merge(
                OmegaConf.load(shipped / "parameters.yml"), {**SMALL, **parameters}
            ),
            "catalog.yml": OmegaConf.load(shipped / "catalog.yml"),
            "mlflow.yml": OmegaConf.create(tracking or {}),
            "dask.yml": OmegaConf.create(dask or {}),
        }
        for name, content in files.items():
            OmegaConf.save(content, folder / name)

    def clear(self) -> None:
        """Remove all but the raw data; the record of runs becomes that which `keep_record` kept, if it did."""
        for entry in self.data.iterdir():
            if entry.name != "01_raw":
                shutil.rmtree(entry)
        for name in ("mlflow_pending", "server.db", "mlartifacts", "tmp"):
            target = self.path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        kept = self.path / "mlflow.db.kept"
        if kept.exists():
            shutil.copy2(kept, self.path / "mlflow.db")

    def keep_record(self) -> None:
        """Keep the record of runs as it is, for `clear`: to make a new one takes seconds."""
        shutil.copy2(self.path / "mlflow.db", self.path / "mlflow.db.kept")

    def start(self, *arguments: str, sabotage: Callable[[], None] | None = None) -> Run:
        """Fork a child that does what ``kedro run`` with these arguments does.

        ``sabotage`` is called in the child before the run.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if threading.active_count() > 1:
            raise RuntimeError(f"a process with threads cannot be forked: {threading.enumerate()}")
        self.temporary.mkdir(exist_ok=True)
        at = self.log.stat().st_size if self.log.exists() else 0
        pid = os.fork()
        if pid:
            return Run(pid, self.log, at)
        status = 70
        try:
            # All processes that the run starts can be found by their session.
            os.setsid()
            with self.log.open("ab", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.path)
            os.environ["TMPDIR"] = str(self.temporary)
            tempfile.tempdir = None
            status = self._run(arguments, sabotage)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _run(self, arguments: tuple[str, ...], sabotage: Callable[[], None] | None) -> int:
        from kedro.framework.startup import bootstrap_project

        from weathermill.cli import run

        atexit._clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        bootstrap_project(self.path)
        if sabotage is not None:
            sabotage()
        status = 0
        try:
            run.main(args=list(arguments), standalone_mode=False)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            threading._shutdown()
            atexit._run_exitfuncs()
        return status

    def run(self, *arguments: str) -> int:
        """Run to the end; give the exit status."""
        return self.start(*arguments).wait()

    def results(self, case: str = "sample") -> dict[str, str]:
        """A digest of every result file of a case by its path below ``data``."""
        return {
            str(path.relative_to(self.data)): digest_of(path)
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and self._counts(path, case)
        }

    def _counts(self, path: Path, case: str) -> bool:
        parts = path.relative_to(self.data).parts
        if parts[0] == "01_raw" or case not in parts or "checkpoints" in parts:
            return False
        if any(p.endswith(LEFT_OVERS) for p in parts):
            return False
        in_store = any(part.endswith(".zarr") or part == "tensors" for part in parts[:-1])
        return (in_store or path.suffix in TIMELESS) and path.name not in (
            "manifest.json",
            "training_history.csv",
        )

    def left_overs(self) -> list[str]:
        """Temporary names that are still there."""
        found = [
            path
            for path in self.path.rglob("*")
            if path.name.endswith(LEFT_OVERS) or (path.parent.name == "mlflow_pending" and path.is_dir())
        ]
        if self.temporary.is_dir():
            found += self.temporary.iterdir()
        return [str(path.relative_to(self.path)) for path in found]

    def record(self, query: str, database: str = "mlflow.db") -> list[tuple[Any, ...]]:
        """Ask MLflow's database."""
        path = self.path / database
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()

    def running(self, database: str = "mlflow.db") -> list[str]:
        """Runs that MLflow takes for running."""
        return [row[0] for row in self.record("select run_uuid from runs where status = 'RUNNING'", database)]


class Run:
    """A run in a forked child.

    Parameters
    ----------
    pid
        Of the child.
    log
        What it prints.
    at
        Where in the log its lines begin.
    """

    def __init__(self, pid: int, log: Path, at: int) -> None:
        self.pid, self.log, self._at = pid, log, at
        self.status: int | None = None
        self.began = time.monotonic()

    def lines(self) -> list[str]:
        """What was logged since the run began; of runs at once, by all of them."""
        with self.log.open("rb") as file:
            file.seek(self._at)
            return file.read().decode(errors="replace").splitlines()

    def ended(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if not self.ended():
            os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end; give the exit status, negative for a signal, 124 where it had to be killed for hanging."""
        deadline = time.monotonic() + timeout
        while not self.ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.status = 124
                return 124
            time.sleep(0.005)
        return self.status

    def wait_for(self, pattern: str, timeout: float = 300) -> bool:
        """Wait until a line is logged that holds a pattern; False if the run ended without."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            over = self.ended()
            if any(re.search(pattern, line) for line in self.lines()):
                return True
            if over:
                return False
            time.sleep(0.002)
        return False

    def processes(self) -> list[psutil.Process]:
        """All processes of the run that are there, itself included, its orphans too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def orphans(self, patience: float = 5.0) -> list[psutil.Process]:
        """What is left of its processes some seconds after its end; it is killed."""
        deadline = time.monotonic() + patience
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return left


def digest_of(path: Path) -> str:
    """Digest a result: bytes, or for NetCDF the values, because its metadata tell the time of writing."""
    if path.suffix == ".nc":
        with xr.open_dataset(path, decode_timedelta=False) as data:
            parts = [
                f"{name}{v.dims}".encode() + v.values.tobytes() for name, v in sorted(data.variables.items())
            ]
        return hashlib.sha256(b"".join(parts)).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_modules(folder: Path) -> Callable[[], None]:
    """Make a sabotage that does none: at the run's end it writes down which modules the run imported."""
    before = set(sys.modules)

    def note() -> None:
        (folder / MODULES).write_text(
            "\n".join(name for name in sys.modules if name not in before), encoding="utf-8"
        )

    return lambda: atexit.register(note)


def import_everything(modules: Sequence[str] = ()) -> None:
    """Import what runs need, so that forked children begin at once. Nothing may start threads here."""
    import importlib

    import kedro.framework.cli.cli  # noqa: F401
    import matplotlib as mpl
    import mlflow  # noqa: F401
    import torch

    import weathermill.cli  # noqa: F401
    import weathermill.datasets  # noqa: F401
    import weathermill.settings  # noqa: F401

    mpl.use("agg")
    # It finds its own units defined when it is imported in another order than usual.
    logging.getLogger("pint").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if modules:
        _warm_up()


def _warm_up() -> None:
    """Do once what every run would do anew: digest the code, and compile what keeps no compiled code."""
    import sparse
    from matplotlib.figure import Figure

    from weathermill.incremental.code import code_digest
    from weathermill.pipeline_registry import register_pipelines

    for node in register_pipelines()["__default__"].nodes:
        code_digest(node.func)
    sparse.COO(np.array([[0, 1], [1, 0]]), np.ones(2), (2, 2)) @ np.ones((2, 2))
    # Drawing takes a third of a run, and figures are not compared: the files are written, but hold one pixel.
    Figure.savefig = _save_pixel


def _save_pixel(self: Any, target: Any, **_: Any) -> None:
    from PIL import Image

    Image.new("RGB", (1, 1)).save(target, format="png")
