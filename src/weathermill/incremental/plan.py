"""Which nodes of a pipeline must run, and why; which stand, and since when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from pydantic import BaseModel

from weathermill.cases import require_sources
from weathermill.errors import ParameterError, WeathermillError
from weathermill.incremental.code import code_digest, dataset_digest, network_digest
from weathermill.incremental.records import Record, fault_of, read_record, stored_record
from weathermill.incremental.selection import Selection, in_memory, with_suppliers
from weathermill.parameters import validate_parameters

#: Parameters that say how to go about the work, not what comes out.
WITHOUT_EFFECT = {
    "train": {
        "resume",
        "feed",
        "threads",
        "device",
        "keep_checkpoints",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "log_every_steps",
        "dry_step",
    }
}

#: Why a node runs of which nothing is kept.
ASKED = "what it makes is kept in memory only and is asked for"
#: The part of a fingerprint that tells a network that was resumed with other parameters, data or code.
HISTORY = "training history"
#: The parts of a fingerprint that are code: the node's, that of the dataset types that it reads and writes through, and
#: that of networks registered from outside.
CODE = ("code", "dataset code", "network code")
_IN_WORDS = {
    "code": "its code",
    "dataset code": "the code or arguments of the datasets that it reads and writes",
    "network code": "the code of its network",
    HISTORY: "its training history (what was resumed with a change stands with train.resume=true)",
}


@dataclass(frozen=True)
class NodePlan:
    """What is to become of one node.

    Parameters
    ----------
    node
        The node.
    runs
        Whether it must run.
    reason
        Why it must, or why it need not.
    fingerprints
        What the fingerprint of each output will be, or is.
    parts
        The fingerprints of what they are made of: each input, and the code.
    records
        The records of those outputs that stand.
    unless_equal
        Whether it only runs because something that it is made of is made again, of the same: it stands if that comes out
        with the same bytes.
    """

    node: Node
    runs: bool
    reason: str
    fingerprints: Mapping[str, str]
    parts: Mapping[str, str]
    records: Mapping[str, Record] = field(default_factory=dict)
    unless_equal: bool = False

    @property
    def why(self) -> str:
        """The reason, and on what it depends."""
        return self.reason + "; skipped if that comes out with the same bytes" * self.unless_equal


def plan_for(
    pipeline: Pipeline, catalog: DataCatalog, *, selection: Selection | None = None
) -> list[NodePlan]:
    """Plan a run with the parameters that are in the catalog.

    Parameters
    ----------
    pipeline
        What was asked for. Nodes that make what it needs in memory are planned with it.
    catalog
        The catalog; pattern datasets are made in it.
    selection
        How it was asked for.

    Returns
    -------
    list of NodePlan
        The nodes of the pipeline, and those that are added because a node that runs needs what they make.

    Raises
    ------
    ConfigurationError
        If the catalog names no source.
    """
    selection = selection or Selection()
    whole = with_suppliers(pipeline, catalog)
    require_sources(whole, catalog)
    for name in whole.datasets():
        catalog.get(name, fallback_to_runtime_pattern=True)
    parameters = validate_parameters(catalog.load("parameters"))
    selected = {node.name for node in pipeline.nodes}
    plan = make_plan(
        whole,
        catalog,
        {name: getattr(parameters, name) for name in type(parameters).model_fields},
        force=forced_nodes(parameters.force),
        only_missing=selection.only_missing_outputs,
        asked=selection.asked(pipeline),
        selected=selected,
    )
    return [entry for entry in plan if entry.node.name in selected or entry.runs]


def forced_nodes(force: bool | str | list[str]) -> bool | Collection[str]:
    """Turn the parameter ``force`` into names of nodes: a pipeline's name stands for its nodes.

    Raises
    ------
    ParameterError
        If a name is neither that of a pipeline nor that of a node.
    """
    if isinstance(force, bool):
        return force
    nodes = {node.name for pipeline in pipelines.values() for node in pipeline.nodes}
    names: set[str] = set()
    for name in force.split() if isinstance(force, str) else force:
        if name not in pipelines and name not in nodes:
            raise ParameterError(
                f"force: {name!r} is neither a pipeline nor a node; there are "
                + ", ".join(sorted({*pipelines, *nodes}))
            )
        names |= {node.name for node in pipelines[name].nodes} if name in pipelines else {name}
    return names


def output_path(dataset: Any) -> Path | None:
    """Where a dataset keeps its data on the local disk, or None."""
    path = getattr(dataset, "path", None) or getattr(dataset, "_filepath", None)
    if path is None or getattr(dataset, "_protocol", "file") not in ("file", "", None):
        return None
    return Path(path) if isinstance(path, str | PurePath) else None


def make_plan(
    pipeline: Pipeline,
    catalog: DataCatalog,
    parameters: Mapping[str, Any],
    *,
    force: Collection[str] | bool = False,
    node_digest: Callable[[Node], str] | None = None,
    only_missing: bool = False,
    asked: Collection[str] = (),
    selected: Collection[str] | None = None,
) -> list[NodePlan]:
    """Plan a run.

    A node stands if all its outputs on disk carry the fingerprint that they would get now: a hash of the node, its
    code, its parameters and the fingerprints of its inputs. A node whose outputs live in memory only runs when a
    node that runs needs them.

    Parameters
    ----------
    pipeline
        What was asked for.
    catalog
        The catalog.
    parameters
        Typed parameters by top-level name.
    force
        True, or names of nodes, that run in any case; what lies downstream of them runs too.
    node_digest
        The digest of a node's code; `code_digest` of its function when not given.
    only_missing
        Whether only nodes run of which an output does not exist. What exists then counts as what it was made as,
        whatever it would be now.
    asked
        Names of nodes that run although what they make is kept in memory only and no other node needs it.
    selected
        Names of the nodes that run for their own sake; others run only if one of these needs them. All when None.

    Returns
    -------
    list of NodePlan
        In the order of the pipeline.
    """
    node_digest = node_digest or (lambda node: code_digest(node.func))
    resume = bool(getattr(parameters.get("train"), "resume", False))
    chosen = {node.name for node in pipeline.nodes} if selected is None else set(selected)
    incomplete = {node.name for node in pipeline.nodes if node.name in chosen and _missing(node, catalog)}
    incomplete = _with_suppliers(pipeline, catalog, incomplete)
    known: dict[str, str] = {}
    plans: dict[str, NodePlan] = {}
    moved: set[str] = set()
    forced_anew: set[str] = set()
    for node in pipeline.nodes:
        parts = {name: _input_fingerprint(name, known, catalog, parameters) for name in node.inputs}
        parts |= _code_parts(node, catalog, parameters, node_digest)
        if resume and (history := _history_with(node, parts, catalog)):
            parts[HISTORY] = history
        known |= output_fingerprints(node, parts)
        on_disk = {name: path for name in node.outputs if (path := _path(name, catalog))}
        records = {name: read_record(path) for name, path in on_disk.items()}
        forced = force is True or (not isinstance(force, bool) and node.name in force)
        upstream = [name for name in node.inputs if name in moved]
        if only_missing:
            missing = _missing(node, catalog)
            reason = f"{missing[0]} does not exist" if missing else ""
            if node.name not in incomplete:
                # What is made of it is made of what is there, which need not be what would be made now.
                known |= {name: _free_input(name, catalog) for name in on_disk}
        else:
            reason = "forced" if forced else _reason_to_run(on_disk, records, known, parts, upstream)
            if not reason and (elsewhere := _elsewhere(node, catalog)):
                reason = f"{elsewhere[0]} is not on the local disk, where records are kept"
        # What lies downstream of a forced node is to run in any case.
        if forced or forced_anew & set(node.inputs):
            forced_anew |= set(node.outputs)
        remade = bool(reason) and bool(upstream) and reason == _made_anew(upstream)
        if not reason and node.name in asked and not on_disk:
            reason = ASKED
        if reason or (upstream and not on_disk):
            moved |= set(node.outputs)
        plans[node.name] = NodePlan(
            node,
            runs=bool(reason),
            reason=reason or ("its outputs exist" if only_missing and on_disk else _reason_to_stand(records)),
            fingerprints={name: known[name] for name in node.outputs},
            parts=parts,
            records={name: record for name, record in records.items() if record},
            unless_equal=remade and not forced_anew & set(node.inputs),
        )
    wanted = {name for name, plan in plans.items() if plan.runs and name in chosen}
    needed = _with_suppliers(pipeline, catalog, wanted)
    return [
        replace(
            plan,
            runs=plan.node.name in needed,
            reason=plan.reason
            if plan.runs or plan.node.name not in needed
            else "what it makes is kept in memory only and is needed",
        )
        for plan in plans.values()
    ]


def _code_parts(
    node: Node,
    catalog: DataCatalog,
    parameters: Mapping[str, Any],
    node_digest: Callable[[Node], str],
) -> dict[str, str]:
    """Digest the code of a node, of its datasets, and of networks from outside that it may build."""
    used = [catalog.get(name) for name in (*node.inputs, *node.outputs) if name in catalog]
    used = [dataset for dataset in used if getattr(dataset, "has_fingerprint", True)]
    kinds = [kind for dataset in used for kind in getattr(dataset, "kinds", (type(dataset),))]
    arguments = [found for dataset in used if (found := getattr(dataset, "arguments", None))]
    reading = [digest, *map(_digest, arguments)] if (digest := dataset_digest(kinds)) else []
    model = parameters.get("model")
    # The network of the parameters, also for nodes that load a model: what else happens to be registered in a process
    # must not change what is up to date.
    network = network_digest(node.func, getattr(model, "name", None), getattr(model, "module", None))
    parts = {
        "code": node_digest(node),
        "dataset code": _digest(reading) if reading else "",
        "network code": network,
    }
    return {key: value for key, value in parts.items() if value or key == "code"}


def output_fingerprints(node: Node, parts: Mapping[str, str]) -> dict[str, str]:
    """Fingerprints of a node's outputs, from those of what they are made of."""
    return {name: _digest([node.name, name, sorted(parts.items())]) for name in node.outputs}


def training_digests(parts: Mapping[str, str]) -> dict[str, str]:
    """What of the parts of a training's fingerprint goes into its history."""
    return {name: digest for name, digest in parts.items() if digest and name != HISTORY}


def _history_with(node: Node, parts: Mapping[str, str], catalog: DataCatalog) -> str:
    """Hash the history that a training will have once it is resumed; empty for nodes that train nothing."""
    datasets = [catalog.get(name) for name in node.inputs if name in catalog]
    checkpoints = next((entry for entry in datasets if hasattr(entry, "history_with")), None)
    return "" if checkpoints is None else checkpoints.history_with(training_digests(parts))


def _missing(node: Node, catalog: DataCatalog) -> list[str]:
    """Names of the outputs of a node that are kept somewhere and do not exist."""
    kept = [name for name in node.outputs if not in_memory(name, catalog)]
    return [
        name
        for name in kept
        if not (path.exists() if (path := _path(name, catalog)) is not None else catalog.get(name).exists())
    ]


def _elsewhere(node: Node, catalog: DataCatalog) -> list[str]:
    """Names of the outputs of a node that are kept, but not on the local disk."""
    return [name for name in node.outputs if not in_memory(name, catalog) and _path(name, catalog) is None]


def _reason_to_run(
    on_disk: Mapping[str, Path],
    records: Mapping[str, Record | None],
    expected: Mapping[str, str],
    parts: Mapping[str, str],
    upstream: list[str],
) -> str:
    for name, path in on_disk.items():
        record = records[name]
        if not path.exists():
            return f"{name} does not exist"
        if record is None:
            stored = stored_record(path)
            return f"{name}: {fault_of(path, stored)}" if stored else f"{name} has no record"
        if record.fingerprint != expected[name]:
            changed = sorted(
                key for key in {*parts, *record.parts} if parts.get(key) != record.parts.get(key)
            )
            return "changed: " + ", ".join(_IN_WORDS.get(key, key) for key in changed)
    if len({record.execution for record in records.values() if record and record.execution}) > 1:
        return f"{' and '.join(records)} were not made together"
    return _made_anew(upstream) if upstream and on_disk else ""


def _made_anew(upstream: list[str]) -> str:
    return f"{upstream[0]} is made anew"


def _reason_to_stand(records: Mapping[str, Record | None]) -> str:
    made = [record for record in records.values() if record]
    if not made:
        return "what it makes is kept in memory only and is not needed"
    return f"unchanged, made {max(made, key=lambda record: record.made).age} ago"


def _with_suppliers(pipeline: Pipeline, catalog: DataCatalog, running: set[str]) -> set[str]:
    """Add the nodes whose outputs, in memory only, are inputs of nodes that run."""
    makers = {name: node for node in pipeline.nodes for name in node.outputs}
    needed, waiting = set(running), [node for node in pipeline.nodes if node.name in running]
    while waiting:
        for name in waiting.pop().inputs:
            maker = makers.get(name)
            if maker is not None and maker.name not in needed and _path(name, catalog) is None:
                needed.add(maker.name)
                waiting.append(maker)
    return needed


def _path(name: str, catalog: DataCatalog) -> Path | None:
    if name not in catalog:
        return None
    dataset = catalog.get(name)
    return None if isinstance(dataset, MemoryDataset) else output_path(dataset)


def _input_fingerprint(
    name: str, known: dict[str, str], catalog: DataCatalog, parameters: Mapping[str, Any]
) -> str:
    if name in known:
        return known[name]
    if name.startswith("params:"):
        return _digest(_effective(name.removeprefix("params:"), parameters))
    if name == "parameters":
        return _digest({key: _effective(key, parameters) for key in parameters})
    known[name] = _free_input(name, catalog)
    return known[name]


def _free_input(name: str, catalog: DataCatalog) -> str:
    dataset = catalog.get(name) if name in catalog else None
    if not getattr(dataset, "has_fingerprint", True):
        return ""
    if hasattr(dataset, "fingerprint"):
        try:
            return dataset.fingerprint()
        except WeathermillError as error:
            # Whoever loads it tells what is wrong, if a node that runs needs it at all.
            return f"unreadable: {error.code}"
    path = output_path(dataset)
    if path is None or not path.exists():
        return ""
    record = read_record(path)
    if record is not None:
        return record.fingerprint
    status = path.stat()
    return _digest([status.st_size, status.st_mtime_ns])


def _effective(name: str, parameters: Mapping[str, Any]) -> Any:
    head, *rest = name.split(".")
    value = parameters.get(head)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if key not in WITHOUT_EFFECT.get(head, ())}
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
