"""What surrounds an incremental run: locks, a check of resources, and the records of what was made."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from weathermill.configuration import require_device
from weathermill.datasets.checkpoints import CheckpointsDataset
from weathermill.datasets.local import LocalDataset, remove
from weathermill.errors import ResourceError
from weathermill.incremental.contents import contents_of, is_made_of_the_same
from weathermill.incremental.ending import Progress
from weathermill.incremental.inputs import require_inputs
from weathermill.incremental.locks import StoreLocks, remove_stale
from weathermill.incremental.memory_estimates import threads
from weathermill.incremental.needs import Needs, needs_of
from weathermill.incremental.plan import (
    HISTORY,
    NodePlan,
    output_fingerprints,
    output_path,
    plan_for,
    training_digests,
)
from weathermill.incremental.records import (
    Record,
    files_of,
    record_path,
    remove_record,
    stored_record,
    write_record,
)
from weathermill.incremental.relocation import is_relocated, relocate
from weathermill.incremental.resources import PeakMemory
from weathermill.incremental.selection import Selection
from weathermill.incremental.sharing import adopt, adopt_checkpoints, unshare
from weathermill.parameters import Parameters, validate_parameters
from weathermill.pipelines.train.configuration import model_config, train_config
from weathermill.tracking.tracker import MLflowTracker
from weathermill.training.resuming import require_resumable

logger = logging.getLogger(__name__)

_UNCHANGED = "unchanged"


class IncrementalHook:
    """Plans a run under locks, and keeps the record of every output on disk.

    The record of an output is withdrawn in the moment before the output is replaced and written once the new one is
    saved: no record ever describes something else than what is there, and a node that fails leaves what stood.
    """

    def __init__(self) -> None:
        self.plan: list[NodePlan] = []
        self._catalog: DataCatalog | None = None
        self._locks = StoreLocks()
        self._memory = PeakMemory()
        self._node: Node | None = None
        self._started = 0.0
        self._execution = ""
        self._made: dict[str, str] = {}
        self._complete: list[str] = []
        self._selection = Selection()
        self._beginning = threading.Lock()
        self._stages: dict[str, dict[str, float]] = {}
        self._needs = Needs()
        self._workers: int | str | None = _UNCHANGED

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Leave the model registry alone while a run is made again."""
        if is_relocated():
            settings = dict(context.config_loader["mlflow"])
            context.config_loader["mlflow"] = {**settings, "registered_model_name": None}

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Have outputs go to their other place while a run is made again."""
        relocate(catalog)

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Lock what the run needs, plan it, and refuse it if it cannot have the disk space it needs."""
        self.release()
        atexit.unregister(self.release)
        atexit.register(self.release)
        self._catalog, self._node, self._stages = catalog, None, {}
        # A run executes each node at most once.
        self._execution, self._made = uuid.uuid4().hex, {}
        self.plan, self._complete = [], []
        parameters = validate_parameters(catalog.load("parameters"))
        locking, resources = parameters.locking, parameters.resources
        timeout = None if locking.timeout_minutes is None else 60 * locking.timeout_minutes
        self._locks = StoreLocks(wait=locking.busy == "wait", timeout=timeout)
        self._selection = Selection.of(run_params)
        self._plan_under_locks(pipeline, catalog)
        try:
            exclusive, shared = self._stores(self.plan)
            for path in exclusive:
                self._clear_left_overs(path)
            for path in self._all_stores(pipeline):
                if path not in self._locks:
                    remove_stale(path)
            restored = [path for path in shared if self._restore(path)]
            if restored or self._adopt_equals(parameters.train.resume):
                self._plan_under_locks(pipeline, catalog)
            require_inputs(self.plan, catalog)
            for entry in self.plan:
                if entry.runs and (checkpoints := self._checkpoints(entry.node)) is not None:
                    require_device(parameters)
                    self._require_resumable(entry, checkpoints, parameters)
            budget = resources.memory_gib
            dask.config.set({"weathermill.memory-bytes": None if budget is None else int(budget * 2**30)})
            if budget is not None:
                self._require_memory(budget)
            self._workers = dask.config.get("num_workers", None)
            dask.config.set({"num_workers": threads(parameters)})
            self._needs = needs_of(self.plan, catalog, parameters)
            self._needs.require(parameters)
        except BaseException:
            self.release()
            raise

    def _checkpoints(self, node: Node) -> CheckpointsDataset | None:
        """What a node that trains goes on from; None for others."""
        datasets = [self._dataset(name) for name in node.inputs]
        return next((entry for entry in datasets if isinstance(entry, CheckpointsDataset)), None)

    def _require_resumable(
        self, entry: NodePlan, checkpoints: CheckpointsDataset, parameters: Parameters
    ) -> None:
        newest = checkpoints.newest() if parameters.train.resume else None
        if newest is not None:
            network = model_config(parameters.model)
            config = train_config(parameters.train, parameters.seed)
            require_resumable(newest, network, config, training_digests(entry.parts))

    def _require_memory(self, budget: float) -> None:
        """Refuse stages that took more memory than they may, when they were run before."""
        for entry in self.plan:
            for name in entry.node.outputs if entry.runs else ():
                path = self._path(name)
                record = stored_record(path) if path is not None else None
                if record is not None and record.peak_memory > budget * 2**30:
                    raise ResourceError(
                        f"{entry.node.name} took {record.peak_memory / 2**30:.2f} GiB of memory last time, and may take "
                        f"{budget:g} GiB",
                        where=str(path),
                        remedy="Raise resources.memory_gib, or take smaller batches, fewer variables or a coarser grid.",
                    )

    def _plan_under_locks(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        while True:
            self.plan = plan_for(pipeline, catalog, selection=self._selection)
            exclusive, shared = self._stores(self.plan)
            if self._locks.covers(exclusive, shared):
                return
            # Locks are always taken all at once, in one order; and what they guard may have changed until then.
            self._locks.release()
            self._locks.acquire(exclusive, shared)

    def _stores(self, plan: Iterable[NodePlan]) -> tuple[set[Path], set[Path]]:
        """Stores that the nodes that run write, and those that they only read."""
        exclusive: set[Path] = set()
        shared: set[Path] = set()
        for entry in plan:
            if entry.runs:
                exclusive |= {path for name in entry.node.outputs if (path := self._path(name))}
                for name in entry.node.inputs:
                    if (path := self._path(name)) is not None:
                        written = getattr(self._dataset(name), "written_while_read", False)
                        (exclusive if written else shared).add(path)
        return exclusive, shared - exclusive

    def _all_stores(self, pipeline: Pipeline) -> set[Path]:
        """Stores of the pipeline, those that stand included: a run that was killed may have locked them."""
        return {path for name in pipeline.datasets() if (path := self._path(name)) is not None}

    def _clear_left_overs(self, path: Path) -> None:
        """Remove what a killed run left beside an output; mend a replacement that it did not finish."""
        if not self._restore(path):
            remove(path.with_name(path.name + ".replaced"))
        record = record_path(path)
        remove(record.with_name(record.name + ".partial"))

    def _restore(self, path: Path) -> bool:
        """Bring back what stood at a path, where a run was killed between taking it away and replacing it."""
        aside = path.with_name(path.name + ".replaced")
        if path.exists() or not aside.exists():
            return False
        # Another run that only reads it may do the same at this moment.
        with contextlib.suppress(FileNotFoundError):
            aside.rename(path)
        logger.info("%s: what stood there before an interrupted run is back", path)
        return True

    def _adopt_equals(self, resume: bool) -> bool:
        adopted = False
        for entry in self.plan:
            if entry.runs and entry.reason != "forced" and not entry.unless_equal:
                outputs = {name: path for name in entry.node.outputs if (path := self._path(name))}
                taken = adopt(entry, outputs)
                checkpoints = self._checkpoints(entry.node)
                if checkpoints is not None and (taken or resume):
                    taken |= adopt_checkpoints(checkpoints, training_digests(entry.parts))
                adopted |= taken
        return adopted

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Begin to measure, with the loading of the first input; tell checkpoints what they will be made of."""
        self._begin(node)
        dataset = self._dataset(dataset_name)
        if isinstance(dataset, CheckpointsDataset) and (entry := self._entry(node)) is not None:
            dataset.digests = training_digests(self._parts(entry))

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Have stores that are forced take nothing over from what stands."""
        self._begin(node)
        forced = any(entry.node.name == node.name and entry.reason == "forced" for entry in self.plan)
        for name in node.outputs:
            if forced and hasattr(dataset := self._dataset(name), "start_afresh"):
                dataset.start_afresh()

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Withdraw the record of an output whose dataset writes in place; ours do so themselves, once they are whole."""
        path = self._path(dataset_name)
        if path is not None and not isinstance(self._dataset(dataset_name), LocalDataset):
            remove_record(path)
            unshare(path)

    def _makers(self) -> dict[str, Node]:
        return {name: entry.node for entry in self.plan for name in entry.node.outputs}

    def leave_out_if_equal(self, entry: NodePlan) -> bool:
        """Leave a node out of the plan if what it is made of was made again with the same bytes; say whether it was."""
        if not is_made_of_the_same(entry, self._makers(), self._path):
            return False
        reason = "what it is made of came out with the same bytes"
        logger.info("%s: skipped; %s", entry.node.name, reason)
        left_out = replace(entry, runs=False, reason=reason)
        self.plan = [left_out if other.node.name == entry.node.name else other for other in self.plan]
        return True

    def _entry(self, node: Node) -> NodePlan | None:
        return next((entry for entry in self.plan if entry.node.name == node.name), None)

    def _parts(self, entry: NodePlan) -> dict[str, str]:
        """Fingerprints of what a node's outputs are made of, as it came: a damaged checkpoint may change what was planned."""
        return {name: self._made.get(name, digest) for name, digest in entry.parts.items()}

    def _parts_made(self, entry: NodePlan) -> dict[str, str]:
        """The same once the node has run: a training's history is that of its newest checkpoint."""
        parts = self._parts(entry)
        if (checkpoints := self._checkpoints(entry.node)) is not None:
            parts.pop(HISTORY, None)
            if history := checkpoints.history():
                parts[HISTORY] = history
        return parts

    def _begin(self, node: Node) -> None:
        # Kedro's asynchronous mode loads the inputs of a node in several threads.
        with self._beginning:
            if self._node is not None and self._node.name == node.name:
                return
            self._node, self._started = node, time.time()
            left = [entry for entry in self.plan if entry.node.name not in self._stages]
            self._locks.keep(*self._stores(left))
            self._memory.start()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write the record, and note what the stage took."""
        peak, now = self._memory.bytes(), time.time()
        seconds = now - self._started
        stage = self._stages.setdefault(node.name, {"written": 0})
        stage |= {"seconds": seconds, "peak": peak}
        path = self._path(dataset_name)
        plan = self._entry(node)
        parts = {} if plan is None else self._parts_made(plan)
        self._made[dataset_name] = output_fingerprints(node, parts)[dataset_name]
        tracker = MLflowTracker.active()
        if plan is not None and path is not None and path.exists():
            known = getattr(self._dataset(dataset_name), "checksums", dict)()
            files = files_of(path, known)
            size = sum(size for size, _ in files.values())
            stage["written"] += size
            record = Record(
                fingerprint=self._made[dataset_name],
                node=node.name,
                made=now,
                seconds=seconds,
                size=size,
                run_id=tracker.run_id if tracker else "",
                parts=parts,
                files=files,
                peak_memory=peak,
                execution=self._execution,
                contents=contents_of(node, self._makers(), self._path),
            )
            write_record(path, record)
        complete = self._made.keys() >= set(node.outputs)
        if complete and node.name not in self._complete:
            self._complete.append(node.name)
        if tracker is not None and complete:
            measured = {"seconds": seconds, "peak_memory_gib": peak / 2**30}
            if node.name in self._needs.memory:
                measured["predicted_memory_gib"] = self._needs.memory[node.name] / 2**30
            tracker.log_metrics({f"stage/{node.name}/{key}": value for key, value in measured.items()})

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Let go of the locks and tell what each stage took."""
        self.release()
        if not self._stages:
            return
        lines = [f"{'stage':<28}{'seconds':>9}{'peak memory':>14}{'predicted':>14}{'written':>14}"]
        for name, stage in self._stages.items():
            known = self._needs.memory.get(name)
            predicted = "" if known is None else f"{known / 2**20:.0f} MiB"
            lines.append(
                f"{name:<28}{stage['seconds']:>9.1f}{stage['peak'] / 2**20:>10.0f} MiB{predicted:>14}"
                f"{stage['written'] / 2**20:>10.1f} MiB"
            )
        logger.info("What the stages took:\n%s", "\n".join(lines))

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Let go of the locks."""
        self.release()

    def interrupted(self) -> None:
        """Let go of the locks."""
        self.release()

    def progress(self) -> Progress:
        """How far the run came that was planned last."""
        left = [entry for entry in self.plan if entry.runs and entry.node.name not in self._complete]
        return Progress(
            complete=tuple(self._complete),
            left=tuple(entry.node.name for entry in left),
            stage="" if self._node is None else self._node.name,
            forced=tuple(entry.node.name for entry in left if entry.reason == "forced"),
            resumable=any(self._resumable(entry) for entry in left),
        )

    def _resumable(self, entry: NodePlan) -> bool:
        """Whether there is a checkpoint of the training that a node is to make."""
        checkpoints = self._checkpoints(entry.node)
        return checkpoints is not None and checkpoints.is_of(training_digests(self._parts(entry)))

    def release(self) -> None:
        """Let go of all locks."""
        if self._workers != _UNCHANGED:
            dask.config.set({"num_workers": self._workers})
            self._workers = _UNCHANGED
        self._memory.close()
        self._locks.release()

    def _dataset(self, name: str) -> Any:
        return self._catalog.get(name) if self._catalog is not None and name in self._catalog else None

    def _path(self, name: str) -> Path | None:
        dataset = self._dataset(name)
        return None if dataset is None else output_path(dataset)
