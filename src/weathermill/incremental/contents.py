"""Leaving out nodes whose inputs were made again and came out with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kedro.pipeline.node import Node

from weathermill.incremental.plan import ASKED, NodePlan
from weathermill.incremental.records import stored_record

PathOf = Callable[[str], Path | None]


def contents_of(node: Node, makers: Mapping[str, Node], path_of: PathOf) -> dict[str, str]:
    """Hash what a node reads from disk, directly or through datasets in memory.

    Parameters
    ----------
    node
        The node.
    makers
        The nodes of the plan by what they make.
    path_of
        Where a dataset is on the local disk; None for those in memory and elsewhere.

    Returns
    -------
    dict
        The hash of the bytes of each output that has a record, by name. What has none is a source, which its fingerprint
        tells.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(node.inputs)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = path_of(name)
        if path is None:
            waiting.extend(makers[name].inputs if name in makers else ())
        elif (record := stored_record(path)) is not None:
            found[name] = record.content
    return found


def is_made_of_the_same(entry: NodePlan, makers: Mapping[str, Node], path_of: PathOf) -> bool:
    """Whether all outputs of a node that stand were made of the bytes that are there now."""
    now = contents_of(entry.node, makers, path_of)
    known = bool(now) and all(now.values()) and bool(entry.records)
    return known and all(dict(record.contents) == now for record in entry.records.values())


def in_batches(
    plan: Sequence[NodePlan],
    in_memory: Callable[[str], bool],
    run: Callable[[list[Node]], None],
    stands: Callable[[NodePlan], bool],
) -> None:
    """Run the nodes of a plan; look before each that is `unless_equal` whether it stands.

    Nodes whose outputs are kept in memory wait for one that needs them, and are left out where none does.

    Parameters
    ----------
    plan
        In the order of the pipeline.
    in_memory
        Whether a dataset is kept in memory only.
    run
        Runs nodes; what they make in memory stays there for later calls.
    stands
        Whether a node stands, now that all it is made of is there.
    """
    running = [entry for entry in plan if entry.runs]
    needed = {name for entry in running for name in entry.node.inputs}
    makers = {name: entry.node for entry in running for name in entry.node.outputs if in_memory(name)}
    batch: list[Node] = []
    ran: set[str] = set()

    def take(node: Node) -> None:
        if node in batch:
            return
        for name in node.inputs:
            maker = makers.get(name)
            if maker is not None and maker.name not in ran:
                take(maker)
        batch.append(node)

    def flush() -> None:
        if batch:
            run(list(batch))
            ran.update(node.name for node in batch)
            batch.clear()

    for entry in running:
        outputs = entry.node.outputs
        if entry.unless_equal:
            flush()
            if not stands(entry):
                take(entry.node)
        elif not outputs or entry.reason == ASKED or any(n not in makers or n not in needed for n in outputs):
            take(entry.node)
    flush()
