"""Crash a run in every way that is known, run again, and see whether anything was lost.

    python scripts/crash_matrix.py                      # 60 random kills and every other case; about half an hour
    python scripts/crash_matrix.py --random 5 --cases kill,term,sqlite

A small project is made in a temporary folder, with a cut of the embedded sample. Each case starts ``kedro run`` there
(in a forked child that has imported everything already), disturbs it, and looks at what is left; then a plain
``kedro run`` must complete. Its results must have the bits of an undisturbed run.

Disk-full and read-only cases mount a small tmpfs, for which one must be root; elsewhere they are skipped.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "true")

import psutil
import xarray as xr
import yaml

SOURCE = Path(__file__).resolve().parents[1]

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
LEFT_OVERS = (".partial", ".replaced", ".lock")


class Project:
    """A small project in a folder of its own.

    Parameters
    ----------
    path
        The folder; made.
    steps
        Six-hourly states of the sample to use.
    pipelines
        What a run runs; all when empty.
    """

    def __init__(self, path: Path, steps: int = 40, pipelines: tuple[str, ...] = ()) -> None:
        self.path = path
        self.pipelines = pipelines
        self.data = path / "data"
        (self.data / "01_raw").mkdir(parents=True)
        (path / "src").mkdir()
        shutil.copytree(SOURCE / "conf", path / "conf", ignore=shutil.ignore_patterns("local"))
        (path / "conf" / "local").mkdir()
        shutil.copy(SOURCE / "pyproject.toml", path)
        (path / ".telemetry").write_text("consent: false\n")
        self.configure()
        with xr.open_dataset(SOURCE / "data" / "01_raw" / "speedy_t21_sample.nc") as sample:
            sample.isel(valid_time=slice(0, steps)).load().to_netcdf(
                self.data / "01_raw" / "speedy_t21_sample.nc"
            )
        self.sample = path / "sample.nc"
        shutil.copy2(self.data / "01_raw" / "speedy_t21_sample.nc", self.sample)

    def configure(self, tracking: dict[str, Any] | None = None, **parameters: Any) -> None:
        """Write ``conf/local``."""
        local = self.path / "conf" / "local"
        (local / "parameters.yml").write_text(yaml.safe_dump({**SMALL, **parameters}))
        (local / "mlflow.yml").write_text(yaml.safe_dump(tracking or {}))

    def clear(self) -> None:
        """Remove all but the raw data and the record of runs, which takes seconds to make."""
        for entry in self.data.iterdir():
            if entry.name != "01_raw":
                shutil.rmtree(entry)
        for name in ("mlflow_pending", "server.db"):
            target = self.path / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)

    def start(self, *pipelines: str, sabotage: Callable[[], None] | None = None) -> int:
        """Fork a child that runs pipelines as ``kedro run`` does; give its process id.

        ``sabotage`` is called in the child before the run.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            with (self.path / "run.log").open("ab", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            os.chdir(self.path)
            status = self._run(pipelines or self.pipelines, sabotage)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _run(self, pipelines: tuple[str, ...], sabotage: Callable[[], None] | None) -> int:
        from kedro.framework.startup import bootstrap_project

        from weathermill.cli import run

        atexit._clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        bootstrap_project(self.path)
        if sabotage is not None:
            sabotage()
        status = 0
        try:
            run.main(args=[f"--pipelines={','.join(pipelines)}"] if pipelines else [], standalone_mode=False)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            atexit._run_exitfuncs()
        return status

    def run(self, *pipelines: str) -> int:
        """Run to the end; give the exit status."""
        return wait(self.start(*pipelines), 300)

    def results(self) -> dict[str, str]:
        """A digest of every result file by its path below ``data``."""
        return {
            str(path.relative_to(self.data)): digest_of(path)
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and self._counts(path)
        }

    def _counts(self, path: Path) -> bool:
        parts = path.relative_to(self.data).parts
        if parts[0] == "01_raw" or "checkpoints" in parts or any(p.endswith(LEFT_OVERS) for p in parts):
            return False
        in_store = any(part.endswith(".zarr") or part == "tensors" for part in parts[:-1])
        return (in_store or path.suffix in TIMELESS) and path.name not in (
            "manifest.json",
            "training_history.csv",
        )

    def left_overs(self) -> list[str]:
        """Temporary names that are still there."""
        return [
            str(path.relative_to(self.path))
            for path in self.path.rglob("*")
            if path.name.endswith(LEFT_OVERS) or (path.parent.name == "mlflow_pending" and path.is_dir())
        ]

    def running(self, database: str = "mlflow.db") -> list[str]:
        """Runs that MLflow takes for running."""
        path = self.path / database
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("select run_uuid from runs where status = 'RUNNING'")
            return [row[0] for row in rows]


def digest_of(path: Path) -> str:
    """Digest a result: bytes, or for NetCDF and Zarr metadata what does not tell the time of writing."""
    if path.suffix == ".nc":
        with xr.open_dataset(path, decode_timedelta=False) as data:
            parts = [
                f"{name}{v.dims}".encode() + v.values.tobytes() for name, v in sorted(data.variables.items())
            ]
        return hashlib.sha256(b"".join(parts)).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait(pid: int, timeout: float) -> int:
    """Wait for a child; give its exit status, negative for a signal."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


@dataclass
class Outcome:
    """What came of one case.

    Parameters
    ----------
    case
        Its name.
    where
        When it struck.
    status
        Exit status of the disturbed run.
    faults
        What did not hold; empty is good.
    """

    case: str
    where: str
    status: int | str
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One line of the table."""
        verdict = "ok" if not self.faults else "; ".join(self.faults)
        return f"{self.case:<22} {self.where:<38} {self.status!s:>6}  {verdict}"


class Matrix:
    """All cases on one project.

    Parameters
    ----------
    project
        The project.
    seed
        Of the random moments.
    """

    def __init__(self, project: Project, seed: int = 0) -> None:
        self.project = project
        self.random = random.Random(seed)
        # Twice: the first also makes the record of runs and compiles, which the disturbed runs need not.
        for _ in range(2):
            project.clear()
            start = time.monotonic()
            if project.run() != 0:
                raise SystemExit(f"the undisturbed run failed; see {project.path / 'run.log'}")
            self.seconds = time.monotonic() - start
        self.expected = project.results()

    def stage(self) -> str:
        """How far a run came, by the newest record."""
        records = sorted(self.project.data.rglob("*.fingerprint.json"), key=lambda p: p.stat().st_mtime)
        return (
            f"after {records[-1].name.removesuffix('.fingerprint.json')}" if records else "before any output"
        )

    def after_crash(self) -> list[str]:
        """What does not hold right after a crash: whatever has its final name must be whole."""
        now = self.project.results()
        stores: dict[str, dict[str, str]] = {}
        for name, digest in now.items():
            stores.setdefault(self._store_of(name), {})[name] = digest
        faults = []
        for store, files in stores.items():
            whole = {name: digest for name, digest in self.expected.items() if self._store_of(name) == store}
            if files != whole:
                faults.append(f"{store} is not whole")
        return faults

    def _store_of(self, name: str) -> str:
        parts = Path(name).parts
        return "/".join(parts[:3])

    def after_recovery(self, status: int, database: str = "mlflow.db") -> list[str]:
        """What does not hold after the next run."""
        faults = [] if status == 0 else [f"the next run ended with {status}"]
        now = self.project.results()
        if now != self.expected:
            different = sorted(k for k in {*now, *self.expected} if now.get(k) != self.expected.get(k))
            faults.append(f"{len(different)} results differ, such as {different[0]}")
        if running := self.project.running(database):
            faults.append(f"{len(running)} runs stay RUNNING")
        if left := self.project.left_overs():
            faults.append(f"left over: {left[0]}")
        return faults

    def signalled(self, number: int, after: float) -> Outcome:
        """Send a signal after some seconds."""
        self.project.clear()
        pid = self.project.start()
        time.sleep(after)
        children = psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        status = wait(pid, 60)
        where = f"{after:.2f} s, {self.stage()}"
        outcome = Outcome(signal.Signals(number).name, where, status, self.after_crash())
        _, alive = psutil.wait_procs(children, timeout=5)
        if alive:
            outcome.faults.append(f"{len(alive)} orphans")
        outcome.faults += self.after_recovery(self.project.run())
        return outcome

    def killed_at_rename(self, number: int, before: bool) -> Outcome:
        """Kill the process just before or just after its n-th renaming of anything to a final name."""
        self.project.clear()
        count = 0

        def sabotage() -> None:
            original = Path.replace

            def replacing(path: Path, target: Any) -> Any:
                nonlocal count
                count += 1
                if count == number and before:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = original(path, target)
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            Path.replace = replacing

        status = wait(self.project.start(sabotage=sabotage), 300)
        where = f"{'before' if before else 'after'} rename {number}, {self.stage()}"
        outcome = Outcome("SIGKILL at rename", where, status, self.after_crash())
        outcome.faults += self.after_recovery(self.project.run())
        return outcome

    def disk_full(self, mebibytes: float) -> Outcome:
        """Run with so little room below ``data``, then with enough."""
        self.project.clear()
        with self._tmpfs(f"{int(mebibytes * 1024)}k") as remount:
            status = wait(self.project.start(), 300)
            outcome = Outcome("disk full", f"{mebibytes:g} MiB, {self.stage()}", status, self.after_crash())
            if status == 0:
                outcome.faults.append("it did not fill the disk")
            remount("size=500m")
            outcome.faults += self.after_recovery(self.project.run())
        return outcome

    def read_only(self, after: float) -> Outcome:
        """Make the file system read-only while the run is at work."""
        self.project.clear()
        with self._tmpfs("500m") as remount:
            pid = self.project.start()
            time.sleep(after)
            made = False
            deadline = time.monotonic() + 20
            while not made and time.monotonic() < deadline:
                # Refused while a file is open for writing.
                made = remount("ro")
                time.sleep(0.005)
            status = wait(pid, 300)
            outcome = Outcome("read-only", f"{after:.2f} s, {self.stage()}", status, self.after_crash())
            if not made:
                outcome.where += " (always busy: not made read-only)"
            remount("rw")
            outcome.faults += self.after_recovery(self.project.run())
        return outcome

    @contextlib.contextmanager
    def _tmpfs(self, size: str) -> Iterator[Callable[[str], bool]]:
        data = self.project.data
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(data)], check=True)
        try:
            (data / "01_raw").symlink_to(self.project.path / "raw", target_is_directory=True)
            raw = self.project.path / "raw"
            raw.mkdir(exist_ok=True)
            shutil.copy2(self.project.sample, raw / "speedy_t21_sample.nc")
            yield (
                lambda options: (
                    subprocess.run(
                        ["mount", "-o", f"remount,{options}", str(data)], capture_output=True
                    ).returncode
                    == 0
                )
            )
        finally:
            subprocess.run(["umount", "-l", str(data)], check=True)

    def sqlite_locked(self) -> Outcome:
        """Hold MLflow's database locked from before the run until after it."""
        self.project.clear()
        if self.project.run("ingest") != 0:
            return Outcome("SQLite locked", "could not be prepared", 1, ["ingest failed"])
        connection = sqlite3.connect(self.project.path / "mlflow.db", isolation_level=None)
        connection.execute("begin exclusive")
        status = wait(self.project.start(), 600)
        connection.execute("rollback")
        connection.close()
        outcome = Outcome("SQLite locked", "all the time", status, self.after_crash())
        if status != 0:
            outcome.faults.append("the run itself failed")
        outcome.faults += self.after_recovery(self.project.run())
        return outcome

    def server(self, kind: str, after: float = 0.0) -> Outcome:
        """A tracking server that is down, dies under way, or takes connections and never answers."""
        self.project.clear()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        tracking = {"tracking_uri": f"http://127.0.0.1:{port}", "artifact_location": None}
        self.project.configure(tracking)
        server = mute = None
        try:
            if kind == "dies":
                server = self._serve(port)
            if kind == "mute":
                mute = socket.create_server(("127.0.0.1", port), backlog=50)
            pid = self.project.start()
            if server is not None:
                time.sleep(after)
                server.kill()
                server.wait()
            status = wait(pid, 900)
            outcome = Outcome(f"MLflow server {kind}", f"{after:.1f} s" if after else "all the time", status)
            outcome.faults = self.after_crash()
            if status != 0:
                outcome.faults.append("the run itself failed")
            if mute is not None:
                mute.close()
            server = self._serve(port)
            outcome.faults += self.after_recovery(self.project.run(), "server.db")
            outcome.faults += self._record_faults()
        finally:
            if server is not None:
                server.kill()
                server.wait()
            self.project.configure()
        return outcome

    def _serve(self, port: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        store = ["--backend-store-uri", f"sqlite:///{self.project.path / 'server.db'}"]
        artefacts = ["--artifacts-destination", str(self.project.path / "mlartifacts")]
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
        log = (self.project.path / "server.log").open("ab")
        server = subprocess.Popen(
            [*command, *store, *artefacts], env=environment, stdout=log, stderr=log, cwd=self.project.path
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return server
            time.sleep(0.5)
        raise SystemExit(f"the MLflow server does not start; see {self.project.path / 'server.log'}")

    def _record_faults(self) -> list[str]:
        """Whether the record of the disturbed run became complete: its metrics and its end."""
        with contextlib.closing(sqlite3.connect(self.project.path / "server.db")) as connection:
            rows = connection.execute(
                "select r.run_uuid, r.status, count(m.key) from runs r "
                "left join metrics m on m.run_uuid = r.run_uuid group by r.run_uuid order by r.start_time"
            ).fetchall()
            epochs = connection.execute(
                "select count(*) from metrics where key = 'validation/loss'"
            ).fetchone()[0]
        if not rows or rows[0][1] != "FINISHED" or rows[0][2] == 0:
            return [f"the record is not complete: {rows[:1]}"]
        if epochs != SMALL["train"]["epochs"]:
            return [f"validation/loss was told {epochs} times"]
        return []


CASES = (
    "kill",
    "rename",
    "int",
    "term",
    "disk",
    "readonly",
    "sqlite",
    "server-down",
    "server-dies",
    "server-mute",
)


def outcomes(matrix: Matrix, cases: list[str], number: int) -> Iterator[Outcome]:
    """Run the cases; each yields as it is done."""
    moments = [matrix.seconds * (i + matrix.random.random()) / number for i in range(number)]
    if "kill" in cases:
        for moment in moments:
            yield matrix.signalled(signal.SIGKILL, moment)
    for case, kind in (("int", signal.SIGINT), ("term", signal.SIGTERM)):
        if case in cases:
            for moment in moments[:: max(1, number // 6)]:
                yield matrix.signalled(kind, moment)
    if "rename" in cases:
        for k in range(1, 40, max(1, 80 // max(number, 1))):
            yield matrix.killed_at_rename(k, before=bool(k % 2))
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if "disk" in cases:
        for size in (0.3, 1.5) if root else ():
            yield matrix.disk_full(size)
    if "readonly" in cases:
        for share in (0.3, 0.6) if root else ():
            yield matrix.read_only(share * matrix.seconds)
    if "sqlite" in cases:
        yield matrix.sqlite_locked()
    if "server-down" in cases:
        yield matrix.server("down")
    if "server-dies" in cases:
        yield matrix.server("dies", 0.5 * matrix.seconds)
    if "server-mute" in cases:
        yield matrix.server("mute")


def import_everything() -> None:
    """Import what runs need, so that forked children begin at once. Nothing may start threads here."""
    import kedro.framework.cli.cli  # noqa: F401
    import mlflow  # noqa: F401
    import torch

    import weathermill.cli
    import weathermill.datasets
    import weathermill.settings  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--random", type=int, default=60, help="random moments of kill -9, spread over the run"
    )
    parser.add_argument("--cases", default=",".join(CASES), help=f"with commas between: {', '.join(CASES)}")
    parser.add_argument("--pipelines", default="", help="with commas between; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="keep the project here")
    arguments = parser.parse_args()
    import_everything()
    pipelines = tuple(name for name in arguments.pipelines.split(",") if name)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="crash-matrix-"))
    matrix = Matrix(Project(folder / "project", pipelines=pipelines), arguments.seed)
    print(f"undisturbed run: {matrix.seconds:.1f} s, {len(matrix.expected)} result files", flush=True)
    print(f"{'case':<22} {'when':<38} {'status':>6}  verdict", flush=True)
    bad = total = 0
    for outcome in outcomes(matrix, arguments.cases.split(","), arguments.random):
        print(outcome.line(), flush=True)
        total += 1
        bad += bool(outcome.faults)
    print(f"{total - bad} of {total} cases hold", flush=True)
    if arguments.folder is None and not bad:
        shutil.rmtree(folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
