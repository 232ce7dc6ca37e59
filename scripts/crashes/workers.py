"""Death of what works for a run: processes of a Dask cluster, threads that read training data."""

from __future__ import annotations

import ctypes
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from crashes.checks import RESUME, Matrix, Outcome, orphans_of, told_plainly
from crashes.project import Run

CLUSTER = {
    "cluster": {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None},
    "config": {"distributed.scheduler.no-workers-timeout": "5s"},
}


def dask_workers(matrix: Matrix, number: int) -> Iterator[Outcome]:
    """Kill a worker of a Dask cluster, both of them again and again, and the run that has them."""
    project = matrix.project
    project.configure(dask=CLUSTER)
    stages = itertools.cycle(("ingest", "regrid", "tensors"))
    try:
        for case, act in (
            *[("Dask worker killed", _kill_one)] * number,
            ("Dask workers all killed", _kill_all),
            ("SIGKILL with Dask", _kill_run),
            ("SIGTERM with Dask", _stop_run),
            ("SIGINT with Dask", _interrupt_run),
        ):
            project.clear()
            run = project.start()
            if not matrix.timeline.draw(next(stages), matrix.random).wait(run):
                raise SystemExit(f"the run with a cluster ended too soon; see {project.log}")
            stage, node = matrix.struck(run)
            struck = act(run)
            status = run.wait(300)
            outcome = Outcome(case, stage, f"at {node}; {struck}", status)
            outcome.faults = matrix.after_crash() + orphans_of(run)
            if act in (_kill_one, _kill_all) and status != 0:
                outcome.faults += told_plainly(run)
            outcome.faults += matrix.recover()
            yield outcome
    finally:
        project.configure()


def _workers(run: Run) -> list[psutil.Process]:
    """The worker processes: children of the run that multiprocessing spawned."""
    return [
        p for p in run.processes() if p.pid != run.pid and any("spawn_main" in word for word in p.cmdline())
    ]


def _kill(processes: list[psutil.Process]) -> str:
    for process in processes:
        process.kill()
    return f"{len(processes)} workers"


def _kill_one(run: Run) -> str:
    return _kill(_workers(run)[:1])


def _kill_all(run: Run) -> str:
    killed = 0
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not run.ended():
        workers = _workers(run)
        killed += len(workers)
        _kill(workers)
        time.sleep(0.2)
    return f"{killed} workers"


def _kill_run(run: Run) -> str:
    workers = len(_workers(run))
    run.signal(signal.SIGKILL)
    return f"{workers} workers"


def _stop_run(run: Run) -> str:
    workers = len(_workers(run))
    run.signal(signal.SIGTERM)
    return f"{workers} workers"


def _interrupt_run(run: Run) -> str:
    workers = len(_workers(run))
    run.signal(signal.SIGINT)
    return f"{workers} workers"


class _UnforeseenError(Exception):
    """What nothing in the product foresees."""


def _failing(error: Callable[[], BaseException]) -> Callable[[], None]:
    """Make a sabotage: the reader of the training's threads raises, from the second epoch on."""

    def sabotage() -> None:
        from weathermill.tensors.store import TensorStore

        original, calls = TensorStore.read_into, [0]

        def reading(self: Any, *arguments: Any, **options: Any) -> Any:
            name = threading.current_thread().name
            if name.startswith("weathermill-read"):
                calls[0] += 1
                if calls[0] > 12:
                    raise error()
            return original(self, *arguments, **options)

        TensorStore.read_into = reading

    return sabotage


def _ending(prefix: str) -> Callable[[], None]:
    """Make a sabotage: threads whose name begins so are ended from outside, once the training has begun."""

    def end() -> None:
        deadline, struck = time.monotonic() + 120, set()
        while time.monotonic() < deadline:
            for thread in threading.enumerate():
                if thread.name.startswith(prefix) and thread.ident is not None and thread not in struck:
                    struck.add(thread)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                    )
            time.sleep(0.005)

    return lambda: threading.Thread(target=end, daemon=True, name="sabotage").start()


def data_threads(matrix: Matrix) -> Iterator[Outcome]:
    """Have threads that read training data fail, and die."""
    project = matrix.project
    for name, sabotage in (
        ("an OSError", _failing(lambda: OSError(5, "Input/output error"))),
        ("an unforeseen error", _failing(lambda: _UnforeseenError("the thread is lost"))),
        ("SystemExit", _failing(lambda: SystemExit(0))),
        ("the reading threads end", _ending("weathermill-read")),
        ("the feed's thread ends", _ending("weathermill-feed")),
    ):
        project.configure(train={**_mapped()})
        project.clear()
        run = project.start(sabotage=sabotage)
        status = run.wait(90)
        project.configure()
        outcome = Outcome("data thread", matrix.struck(run)[0], name, status)
        outcome.faults = matrix.after_crash() + orphans_of(run)
        if status == 124:
            outcome.faults.append("it hung")
        elif status == 0:
            outcome.faults.append("it did not fail")
        else:
            outcome.faults += told_plainly(run)
        outcome.faults += matrix.recover(*RESUME)
        yield outcome


def _mapped() -> dict[str, Any]:
    from crashes.project import SMALL

    return {**SMALL["train"], "feed": "mapped"}
