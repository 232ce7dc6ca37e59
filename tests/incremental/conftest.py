"""A little Kedro project of pure functions and local files, for the machinery alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from weathermill.datasets import WholeDataset


def source_to_store(source, params):
    return f"{source}:{params}"


def lazily(store):
    return store.upper()


def finish(lazy):
    return lazy + "!"


class Little:
    """source -> store (disk) -> lazy (memory) -> result (disk)."""

    def __init__(self, folder: Path, case: str = "a") -> None:
        self.folder = folder
        self.source = folder / "source.txt"
        if not self.source.exists():
            self.source.write_text("raw")
        self.parameters = {"scale": 1, "unused": 2}
        self.digests = {"store": "v1", "lazily": "v1", "finish": "v1"}
        self.catalog = DataCatalog(
            {
                "source": WholeDataset(filepath=str(self.source), dataset="text.TextDataset"),
                "store": self._text("02_intermediate", case, "store.txt"),
                "lazy": MemoryDataset(),
                "result": self._text("07_model_output", case, "result.txt"),
            }
        )
        self.pipeline = Pipeline(
            [
                Node(source_to_store, ["source", "params:scale"], "store", name="store"),
                Node(lazily, "store", "lazy", name="lazily"),
                Node(finish, "lazy", "result", name="finish"),
            ]
        )

    def _text(self, *parts: str) -> WholeDataset:
        return WholeDataset(filepath=str(self.folder.joinpath(*parts)), dataset="text.TextDataset")

    def path(self, name: str) -> Path:
        return self.catalog.get(name).path


@pytest.fixture
def make_little(tmp_path):
    def make(case: str = "a") -> Little:
        return Little(tmp_path, case)

    return make
