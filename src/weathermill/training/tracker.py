"""Where training reports to: a small protocol, so that the engine knows no particular tracking system."""

from __future__ import annotations

import json
import math
import queue
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Row = tuple[int, dict[str, float]]


@runtime_checkable
class Tracker(Protocol):
    """What the engine needs of a tracking system.

    A tracker may further have ``run_id`` (kept in checkpoints), ``flush()`` (send what it holds back) and
    ``last_step(key)`` (the largest step already recorded under a metric, or None): the latter lets a
    resumed run continue the record without gaps or doubles. The functions `flush`, `run_id` and `last_step`
    ask for them.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at an optimiser step. Called in batches, never on the hot path."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, flattened."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file or folder."""


class NullTracker:
    """Records nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Ignore."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Ignore."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Ignore."""


class RecordingTracker:
    """Records to a folder: metrics as JSON lines, parameters as JSON, artefacts as copies.

    Needs nothing but the file system, for machines without a tracking system. A line that a crash cut short
    is dropped when the folder is opened again.

    Parameters
    ----------
    folder
        Made when missing; what is there already is continued.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run_id = self.folder.name
        self._path = self.folder / "metrics.jsonl"
        self._last: dict[str, int] = {}
        whole = b""
        if self._path.exists():
            data = self._path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                with self._path.open("r+b") as file:
                    file.truncate(len(whole))
        for line in whole.splitlines():
            self._note(json.loads(line))

    def _note(self, record: Mapping[str, Any]) -> None:
        for key in record["metrics"]:
            self._last[key] = max(record["step"], self._last.get(key, record["step"]))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Append one line; it has reached the operating system when this returns."""
        record = {"step": int(step), "metrics": {key: float(value) for key, value in metrics.items()}}
        with self._path.open("ab") as file:
            file.write((json.dumps(record) + "\n").encode())
        self._note(record)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Merge into ``params.json``."""
        path = self.folder / "params.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**known, **params}, indent=1, default=str), encoding="utf-8")

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or folder to ``artifacts``."""
        target = self.folder / "artifacts" / (folder or "")
        target.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            shutil.copytree(path, target / Path(path).name, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target)

    def last_step(self, key: str) -> int | None:
        """Give the largest step recorded under a metric."""
        return self._last.get(key)

    def rows(self) -> list[Row]:
        """Read all metrics back, in the order of recording."""
        if not self._path.exists():
            return []
        return [
            (r["step"], r["metrics"])
            for r in map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        ]


def flush(tracker: Tracker) -> None:
    """Have a tracker send what it holds back, where it holds anything back."""
    getattr(tracker, "flush", lambda: None)()


def run_id(tracker: Tracker) -> str | None:
    """Give the tracker's run, where it has one."""
    return getattr(tracker, "run_id", None)


class MetricLog:
    """Metrics on their way to the tracker: collected per step, sent in batches by a thread, each exactly once.

    Parameters
    ----------
    tracker
        Where they go. Its calls come from one other thread, so that a slow one (30 ms is usual) holds nothing up.
    resumed
        Whether the tracker may hold later steps than this process starts from: then it is asked for the last step
        of each metric, and rows up to it are not sent again.
    """

    def __init__(self, tracker: Tracker, resumed: bool = False) -> None:
        self.tracker = tracker
        self._rows: list[Row] = []
        self._last_step = getattr(tracker, "last_step", None) if resumed else None
        self._sent: dict[str, int | None] = {}
        self._work: queue.Queue[list[Row] | threading.Event | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep one row."""
        self._rows.append((int(step), {key: float(value) for key, value in metrics.items()}))

    def extend(self, rows: Iterable[Row]) -> None:
        """Keep many rows."""
        for step, metrics in rows:
            self.add(step, metrics)

    def send(self) -> None:
        """Have the thread send what was kept, but for non-finite numbers and what the tracker has already."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="weathermill-metrics", daemon=True)
            self._thread.start()
        self._work.put(rows)

    def flush(self) -> None:
        """Send, and wait until the tracker has everything; raises what the tracker raised."""
        self.send()
        if self._thread is not None:
            done = threading.Event()
            self._work.put(done)
            done.wait()
        self.send()
        flush(self.tracker)

    def close(self) -> None:
        """Send what is left and end the thread."""
        try:
            self.flush()
        finally:
            if self._thread is not None:
                self._work.put(None)
                self._thread.join()
                self._thread = None

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                for step, metrics in item:
                    new = {k: v for k, v in metrics.items() if math.isfinite(v) and self._new(k, step)}
                    if new:
                        self.tracker.log_metrics(new, step)
            except BaseException as error:
                self._failure = error

    def _new(self, key: str, step: int) -> bool:
        if self._last_step is None:
            return True
        if key not in self._sent:
            self._sent[key] = self._last_step(key)
        last = self._sent[key]
        return last is None or step > last
