"""Seeing that what the nodes of a run read is there, before any of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kedro.io import DataCatalog

from weathermill.errors import ConfigurationError
from weathermill.incremental.plan import NodePlan, output_path
from weathermill.incremental.selection import in_memory, makers


def require_inputs(plan: Sequence[NodePlan], catalog: DataCatalog) -> None:
    """Refuse a run whose nodes read stores that do not exist and that no node of the run makes.

    Raises
    ------
    ConfigurationError
        Naming the nodes that make them.
    """
    made = {name for entry in plan if entry.runs for name in entry.node.outputs}
    known_makers = makers()
    lacking: dict[str, str] = {}
    for entry in plan:
        for name in entry.node.inputs if entry.runs else ():
            path = _local_path(name, catalog)
            if name in known_makers and name not in made and path is not None and not path.exists():
                lacking.setdefault(name, entry.node.name)
    if lacking:
        several = len(lacking) > 1
        nodes = ",".join(dict.fromkeys(known_makers[name].name for name in lacking))
        raise ConfigurationError(
            "; ".join(f"{node} reads {name}" for name, node in lacking.items())
            + f", which {'do' if several else 'does'} not exist and which no node of this run makes",
            where=", ".join(str(_local_path(name, catalog)) for name in lacking),
            remedy=f"Make {'them' if several else 'it'} first: `kedro run --to-nodes={nodes}` with the same environment "
            "and parameters, where what stands is skipped; or add these nodes to the run.",
        )


def _local_path(name: str, catalog: DataCatalog) -> Path | None:
    return output_path(catalog.get(name)) if name in catalog and not in_memory(name, catalog) else None
