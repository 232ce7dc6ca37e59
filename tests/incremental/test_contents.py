"""What is made again with the same bytes has nothing made again of it."""

from __future__ import annotations

import logging

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from weathermill.datasets import WholeDataset
from weathermill.incremental import hook as hook_module
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.plan import plan_for
from weathermill.incremental.records import read_record
from weathermill.incremental.runner import IncrementalRunner


class Chain:
    """source -> first (disk) -> lazy (memory) -> second, third (disk); second -> fourth (disk)."""

    def __init__(self, folder):
        self.folder, self.ran, self.suffix = folder, [], ""
        (folder / "source.txt").write_text("raw", encoding="utf-8")

        def node(name, inputs, change=lambda text: text):
            def work(*given):
                self.ran.append(name)
                return change("+".join(given))

            work.__name__ = name
            return Node(work, inputs, name, name=name)

        self.pipeline = Pipeline(
            [
                node("first", "source", lambda text: text + self.suffix),
                node("lazy", "first"),
                node("second", "lazy", str.upper),
                node("third", ["lazy", "second"]),
                node("fourth", "second"),
            ]
        )

    def catalog(self, **parameters):
        stored = ("source", "first", "second", "third", "fourth")
        raw = {"ingest": {"variables": ["temperature"]}, **parameters}
        return DataCatalog(
            {
                "parameters": MemoryDataset(raw),
                "lazy": MemoryDataset(),
                **{n: WholeDataset(filepath=str(self.path(n)), dataset="text.TextDataset") for n in stored},
            }
        )

    def path(self, name):
        return self.folder / f"{name}.txt"

    def lose(self, *names):
        for name in names:
            self.path(name).unlink()

    def run(self, **parameters):
        self.ran.clear()
        hook, manager, catalog = IncrementalHook(), _create_hook_manager(), self.catalog(**parameters)
        manager.register(hook)
        try:
            hook.before_pipeline_run({"runner": "IncrementalRunner"}, self.pipeline, catalog)
            IncrementalRunner().run(self.pipeline, catalog, manager)
        finally:
            hook.release()
        self.plan = {entry.node.name: entry for entry in hook.plan}
        return sorted(self.ran)


@pytest.fixture
def chain(tmp_path, monkeypatch):
    # The functions here have one source each, so that their code never changes.
    monkeypatch.setattr("weathermill.incremental.plan.code_digest", lambda function: function.__name__)
    chain = Chain(tmp_path)
    assert chain.run() == ["first", "fourth", "lazy", "second", "third"]
    assert chain.run() == []
    return chain


def test_records_hold_the_contents_of_what_was_read_also_through_memory(chain):
    contents = read_record(chain.path("third")).contents
    assert contents == {n: read_record(chain.path(n)).content for n in ("first", "second")}
    assert read_record(chain.path("first")).contents == {}


def test_nothing_is_made_of_what_comes_out_the_same(chain, caplog):
    chain.lose("first")
    planned = {e.node.name: e.why for e in plan_for(chain.pipeline, chain.catalog()) if e.runs}
    assert planned["second"] == "lazy is made anew; skipped if that comes out with the same bytes"
    with caplog.at_level(logging.INFO):
        assert chain.run() == ["first"]
    assert "second: skipped; what it is made of came out with the same bytes" in caplog.text
    assert [name for name, entry in chain.plan.items() if entry.runs and name != "lazy"] == ["first"]
    assert chain.run() == []


def test_everything_is_made_of_what_comes_out_otherwise(chain):
    chain.suffix = "?"
    chain.lose("first")
    # `lazy` is read before and after `third` is looked at, and made once.
    assert chain.run() == ["first", "fourth", "lazy", "second", "third"]
    assert chain.path("third").read_text(encoding="utf-8") == "raw?+RAW?"
    assert chain.run() == []


def test_a_result_that_is_lost_as_well_is_made_and_the_rest_stands(chain):
    chain.lose("first", "third")
    assert chain.run() == ["first", "lazy", "third"]
    assert chain.path("third").read_text(encoding="utf-8") == "raw+RAW"


def test_what_lies_between_cuts_off_what_lies_below(chain):
    # `second` turns small letters to capitals, and so does not tell "x" from "X" above it.
    chain.lose("first")
    chain.suffix = "x"
    chain.run()
    assert chain.path("fourth").read_text(encoding="utf-8") == "RAWX"
    chain.lose("first")
    chain.suffix = "X"
    assert chain.run() == ["first", "lazy", "second", "third"]
    assert chain.plan["fourth"].reason == "what it is made of came out with the same bytes"
    assert chain.path("third").read_text(encoding="utf-8") == "rawX+RAWX"


def test_what_is_forced_is_made_with_all_that_lies_below(chain):
    everything = sorted(node.name for node in chain.pipeline.nodes)
    assert chain.run(force=True) == everything


def test_downstream_of_a_forced_node_runs_in_any_case(chain, monkeypatch):
    monkeypatch.setattr(
        "weathermill.incremental.plan.forced_nodes", lambda force: {"first"} if force else False
    )
    assert chain.run(force="first") == ["first", "fourth", "lazy", "second", "third"]


def test_records_that_do_not_hold_contents_cut_nothing_off(chain, monkeypatch):
    monkeypatch.setattr(hook_module, "contents_of", lambda *_: {})
    chain.run(force=True)
    monkeypatch.undo()
    monkeypatch.setattr("weathermill.incremental.plan.code_digest", lambda function: function.__name__)
    chain.lose("first")
    assert {"second", "third", "fourth"} <= set(chain.run())
