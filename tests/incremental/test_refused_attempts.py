"""An attempt that fails leaves what stood as it stood, its record included."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.text import TextDataset

from weathermill.datasets import WholeDataset
from weathermill.datasets.local import replace
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.records import (
    Record,
    files_of,
    read_record,
    record_path,
    size_of,
    stored_record,
    write_record,
)
from weathermill.incremental.runner import IncrementalRunner


class RefusalError(Exception):
    pass


class Pair:
    """One node with two outputs on disk, which fails on demand: in its own work, or at its second output."""

    def __init__(self, folder: Path, kind: type = WholeDataset) -> None:
        # Outputs of equal fingerprint are looked for in folders beside this one.
        self.folder, self.kind, self.fails = folder / "layer" / "case", kind, ""
        self.folder.mkdir(parents=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def _dataset(self, name: str):
        if self.kind is TextDataset:
            return TextDataset(filepath=str(self.path(name)))
        return WholeDataset(filepath=str(self.path(name)), dataset="text.TextDataset")

    def _work(self, seed: int):
        if self.fails == "work":
            raise RefusalError
        return f"first of {seed}", 5 if self.fails == "second" else f"second of {seed}"

    def run(self, *, fails: str = "", seed: int = 0, force: bool = False) -> list[str]:
        """Run with the hook and the runner of the project; give the reasons of what ran."""
        self.fails = fails
        parameters = {"ingest": {"variables": ["temperature"]}, "seed": seed, "force": force}
        catalog = DataCatalog(
            {
                "parameters": MemoryDataset(parameters),
                "params:seed": MemoryDataset(seed),
                "first": self._dataset("first"),
                "second": self._dataset("second"),
            }
        )
        pipeline = Pipeline([Node(self._work, "params:seed", ["first", "second"], name="work")])
        hook, manager = IncrementalHook(), _create_hook_manager()
        manager.register(hook)
        hook.before_pipeline_run({"runner": "IncrementalRunner"}, pipeline, catalog)
        reasons = [entry.reason for entry in hook.plan if entry.runs]
        try:
            IncrementalRunner().run(pipeline, catalog, manager)
        finally:
            hook.release()
        return reasons


@pytest.mark.parametrize("kind", [WholeDataset, TextDataset])
def test_a_node_that_refuses_leaves_its_outputs_and_their_records(tmp_path, kind):
    pair = Pair(tmp_path, kind)
    assert pair.run() == ["first does not exist"]
    stood = {path.name: path.read_bytes() for path in pair.folder.iterdir()}
    for options in ({"seed": 1}, {"force": True}):
        with pytest.raises(RefusalError):
            pair.run(fails="work", **options)
    assert {path.name: path.read_bytes() for path in pair.folder.iterdir()} == stood
    assert pair.run() == []


def test_outputs_of_two_executions_do_not_stand_together(tmp_path):
    pair = Pair(tmp_path)
    pair.run()
    with pytest.raises(Exception, match="second"):
        pair.run(fails="second", force=True)
    # The first was replaced by one of the same fingerprint, the second was not.
    assert read_record(pair.path("first")) and read_record(pair.path("second"))
    assert pair.run() == ["first and second were not made together"]
    assert pair.run() == []


def test_a_dataset_that_writes_in_place_has_no_record_while_it_is_written(tmp_path, monkeypatch):
    pair = Pair(tmp_path, TextDataset)
    pair.run()
    seen = []
    save = TextDataset.save

    def look(self, data):
        seen.append(record_path(Path(self._filepath)).exists())
        save(self, data)

    monkeypatch.setattr(TextDataset, "save", look)
    pair.run(seed=1)
    assert seen == [False, False]


def test_a_dataset_that_writes_in_place_does_not_change_what_another_environment_shares(tmp_path):
    pair = Pair(tmp_path, TextDataset)
    pair.run()
    other = tmp_path / "shared.txt"
    os.link(pair.path("first"), other)
    pair.run(seed=1)
    assert pair.path("first").read_text() == "first of 1"
    assert other.read_text() == "first of 0"


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    (path / "data").write_text("old")
    write_record(path, Record("f", "node", 0.0, 0.0, size_of(path), files=files_of(path)))
    new = tmp_path / "store.partial"
    new.mkdir()
    (new / "data").write_text("new")
    return path, new


def test_a_record_is_withdrawn_before_what_it_describes_is_replaced(output, monkeypatch):
    path, new = output
    order = []
    rename = Path.rename

    def look(self, target):
        order.append((self.name, record_path(path).exists()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    replace(new, path)
    assert order == [("store", False)]
    assert (path / "data").read_text() == "new"
    assert stored_record(path) is None


def test_a_replacement_that_the_system_refuses_leaves_output_and_record(output, monkeypatch):
    path, new = output

    def refuse(self, target):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        replace(new, path)
    monkeypatch.undo()
    assert (path / "data").read_text() == "old"
    assert read_record(path).fingerprint == "f"
