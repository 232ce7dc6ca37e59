"""Every runner of Kedro's skips what stands, in this project alone; what is asked for by name comes out."""

from __future__ import annotations

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import AbstractRunner, SequentialRunner

from weathermill.datasets import WholeDataset
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.runner import IncrementalRunner, skip_in_every_runner


class Made:
    """source -> one, two (disk) -> lazy (memory) -> result (disk), and a list of what ran."""

    def __init__(self, folder):
        self.folder, self.ran = folder, []
        (folder / "source.txt").write_text("raw")
        self.pipeline = Pipeline(
            [
                Node(self.split, "source", ["one", "two"], name="split"),
                Node(self.join, ["one", "two"], "lazy", name="join"),
                Node(self.finish, "lazy", "result", name="finish"),
            ]
        )
        self.hook, self.manager = IncrementalHook(), _create_hook_manager()
        self.manager.register(self.hook)

    def split(self, source):
        self.ran.append("split")
        return source.upper(), source

    def join(self, one, two):
        self.ran.append("join")
        return one + two

    def finish(self, lazy):
        self.ran.append("finish")
        return lazy + "!"

    def run(self, runner, manager=..., **selection):
        """Names of the nodes that ran, and what the runner gave."""
        self.ran.clear()
        files = {
            name: WholeDataset(filepath=str(self.folder / f"{name}.txt"), dataset="text.TextDataset")
            for name in ("source", "one", "two", "result")
        }
        raw = {"ingest": {"variables": ["temperature"]}, "resources": {"disk_check": False}}
        catalog = DataCatalog({**files, "lazy": MemoryDataset(), "parameters": MemoryDataset(raw)})
        pipeline = self.pipeline.filter(**selection)
        try:
            if manager is ...:
                self.hook.before_pipeline_run(selection, pipeline, catalog)
                manager = self.manager
            return list(self.ran), runner.run(pipeline, catalog, manager)
        finally:
            self.hook.release()


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(AbstractRunner, "run", AbstractRunner.run)
    skip_in_every_runner()
    # A notebook that loads the project again does it again.
    skip_in_every_runner()
    return Made(tmp_path)


@pytest.mark.parametrize("runner", [SequentialRunner(), SequentialRunner(is_async=True), IncrementalRunner()])
def test_every_runner_skips_what_stands_and_gives_all_outputs(made, runner):
    made.run(runner)
    assert made.ran == ["split", "join", "finish"]
    assert set(made.hook.progress().complete) == {"split", "join", "finish"}
    _, given = made.run(runner)
    assert made.ran == []
    assert given.keys() == {"result"} and given["result"].load() == "RAWraw!"
    (made.folder / "two.txt").unlink()
    made.run(runner)
    # It comes out as it was.
    assert made.ran == ["split"]


def test_other_projects_in_the_process_run_as_ever(made):
    made.run(SequentialRunner())
    made.run(SequentialRunner(), _create_hook_manager())
    assert made.ran == ["split", "join", "finish"]


def test_what_is_kept_in_memory_is_made_where_it_is_asked_for(made):
    made.run(SequentialRunner())
    _, given = made.run(SequentialRunner(), node_names=["split", "join"])
    assert made.ran == ["join"] and given["lazy"].load() == "RAWraw"
    _, given = made.run(SequentialRunner(), to_outputs=["lazy"])
    assert made.ran == ["join"] and given["lazy"].load() == "RAWraw"
    made.run(SequentialRunner(), from_nodes=["split"])
    assert made.ran == []
    # What is kept on disk stands, also where its node is named.
    for selection in ({"to_nodes": ["split"]}, {"node_names": ["split"]}):
        made.run(SequentialRunner(), **selection)
        assert made.ran == []
