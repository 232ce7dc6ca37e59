"""A model's two files change together."""

from __future__ import annotations

import pytest

from weathermill.datasets import ForecasterDataset


class Model:
    def __init__(self, text, *, fails=False):
        self.text, self.fails = text, fails

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_text(self.text)
        if self.fails:
            raise RuntimeError("killed between the two")
        (folder / "model.json").write_text(self.text)


def test_a_save_that_ends_between_the_files_changes_nothing(tmp_path):
    dataset = ForecasterDataset(filepath=str(tmp_path / "models" / "model"))
    dataset.save(Model("first"))
    with pytest.raises(Exception, match="killed between"):
        dataset.save(Model("second", fails=True))
    assert {path.read_text() for path in dataset.path.iterdir()} == {"first"}
    assert [path.name for path in dataset.path.parent.iterdir()] == ["model"]
    dataset.save(Model("third"))
    assert {path.name: path.read_text() for path in dataset.path.iterdir()} == {
        "model.safetensors": "third",
        "model.json": "third",
    }
