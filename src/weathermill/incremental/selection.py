"""Which nodes a run was asked for, by the options of ``kedro run`` or the arguments of ``KedroSession.run``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset, SharedMemoryDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from weathermill.errors import ConfigurationError
from weathermill.faults import require_known

_OPTIONS = {"node_names": "nodes", "pipeline_names": "pipelines"}


@dataclass(frozen=True)
class Selection:
    """What a run was asked for; the names are those of the arguments of ``KedroSession.run``.

    Parameters
    ----------
    pipeline_names
        Pipelines that are put together; the default one when empty.
    tags, node_names, from_nodes, to_nodes, from_inputs, to_outputs, namespaces
        Filters of their nodes; each that is given must let a node pass.
    only_missing_outputs
        Whether only nodes run of which an output does not exist.
    """

    pipeline_names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    node_names: tuple[str, ...] = ()
    from_nodes: tuple[str, ...] = ()
    to_nodes: tuple[str, ...] = ()
    from_inputs: tuple[str, ...] = ()
    to_outputs: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    only_missing_outputs: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Selection:
        """Read what Kedro tells hooks of a run, or the options of ``kedro run``."""
        named = {
            entry.name: tuple(given.get(entry.name) or ())
            for entry in fields(cls)
            if entry.name != "only_missing_outputs"
        }
        if not named["pipeline_names"]:
            one = given.get("pipeline")
            named["pipeline_names"] = tuple(given.get("pipelines") or ()) or ((one,) if one else ())
        return cls(**named, only_missing_outputs=bool(given.get("only_missing_outputs")))

    def pipeline(self) -> Pipeline:
        """Make the pipeline that Kedro makes of the same selection.

        Raises
        ------
        ConfigurationError
            If a name is unknown, or no node passes all filters.
        """
        combined = combined_pipeline(self.pipeline_names)
        nodes = {node.name for node in combined.nodes}
        remedy = "Choose among these; `kedro run --dry-run` lists what each would do."
        require_known((*self.node_names, *self.from_nodes, *self.to_nodes), nodes, "node", remedy)
        require_known((*self.from_inputs, *self.to_outputs), combined.datasets(), "dataset")
        require_known(self.tags, {tag for node in combined.nodes for tag in node.tags}, "tag")
        namespaces = {prefix for node in combined.nodes for prefix in node.namespace_prefixes}
        require_known(self.namespaces, namespaces, "namespace")
        try:
            return combined.filter(
                tags=self.tags,
                node_names=self.node_names,
                from_nodes=self.from_nodes,
                to_nodes=self.to_nodes,
                from_inputs=self.from_inputs,
                to_outputs=self.to_outputs,
                node_namespaces=list(self.namespaces),
            )
        except ValueError as error:
            raise ConfigurationError(
                "no node passes all of these filters",
                where=" ".join(self._words()),
                remedy="Every filter that is given must let a node pass; leave one out.",
            ) from error

    def _words(self) -> list[str]:
        return [
            f"--{_OPTIONS.get(entry.name, entry.name).replace('_', '-')}={','.join(value)}"
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), tuple) and value
        ]

    def asked(self, pipeline: Pipeline) -> set[str]:
        """Names of the nodes of a selected pipeline whose results in memory are asked for by name."""
        last = pipeline.outputs()
        return {
            node.name
            for node in pipeline.nodes
            if set(node.outputs) <= last
            and (
                node.name in self.node_names
                or node.name in self.to_nodes
                or set(node.outputs) & set(self.to_outputs)
            )
        }


def combined_pipeline(names: Sequence[str] = ()) -> Pipeline:
    """Put the pipelines of these names together; the default one when there are none.

    Raises
    ------
    ConfigurationError
        If a name is that of no pipeline.
    """
    require_known(names, list(pipelines), "pipeline", "Choose one of these with --pipelines.")
    combined = Pipeline([])
    for name in names or ["__default__"]:
        combined += pipelines[name]
    return combined


def in_memory(name: str, catalog: DataCatalog) -> bool:
    """Whether a dataset is kept in memory only, and so ends with the run."""
    return name not in catalog or isinstance(catalog.get(name), MemoryDataset | SharedMemoryDataset)


def makers() -> dict[str, Node]:
    """The node that makes each dataset, of all pipelines of the project."""
    everything: Iterable[Pipeline] = reversed([pipelines[name] for name in pipelines])
    return {name: node for pipeline in everything for node in pipeline.nodes for name in node.outputs}


def with_suppliers(pipeline: Pipeline, catalog: DataCatalog) -> Pipeline:
    """Add to a selection the nodes that make what it reads from memory, and what these read from memory.

    A dataset in memory ends with the run that made it, so that a node cannot run without the node that makes its
    input in the same run.
    """
    everything = makers()
    nodes, waiting = set(pipeline.nodes), list(pipeline.nodes)
    made = {name for node in nodes for name in node.outputs}
    while waiting:
        for name in waiting.pop().inputs:
            maker = everything.get(name)
            if maker is None or name in made or not in_memory(name, catalog) or _has_data(name, catalog):
                continue
            nodes.add(maker)
            waiting.append(maker)
            made |= set(maker.outputs)
    return pipeline if len(nodes) == len(pipeline.nodes) else Pipeline(nodes)


def _has_data(name: str, catalog: DataCatalog) -> bool:
    return name in catalog and catalog.get(name).exists()
