"""The record of a model follows from what it was trained with, and what lies downstream follows the model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from safetensors.torch import load_file

from weathermill.datasets import CheckpointsDataset, ForecasterDataset, TensorStoreDataset, WholeDataset
from weathermill.errors import CheckpointError, NonFiniteError
from weathermill.incremental import plan as plan_module
from weathermill.incremental.hook import IncrementalHook
from weathermill.incremental.records import read_record, remove_record, stored_record
from weathermill.incremental.runner import IncrementalRunner
from weathermill.incremental.sharing import adopt_checkpoints
from weathermill.parameters import validate_parameters
from weathermill.pipelines.train.nodes import history_tags, train_network
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.tensors.writer import TensorWriter

STEPS = 6


def judge(model):
    return f"best epoch {model.trained_with['best_epoch']}"


def write_tensors(path):
    """Travelling waves, six batches of four windows."""
    time, longitude = np.arange(40)[:, None, None, None], np.arange(16) * 2 * np.pi / 16
    values = (np.sin(longitude - 0.3 * time) * np.cos(np.linspace(-1, 1, 8))[:, None]).astype(np.float32)
    writer = TensorWriter(
        path,
        channels=ChannelTable([Channel("temperature_850", "temperature", 850.0, "prognostic", "K")]),
        latitude=np.linspace(90, -90, 8),
        longitude=np.arange(16) * 22.5,
        times=np.arange(40) * 21600,
        calendar="standard",
        time_step=21600,
        area_weights=np.ones(8),
        mean=np.zeros(1),
        std=np.ones(1),
        tendency_std=np.full(1, 0.2),
        splits={"train": [(0, 25)], "validation": [(25, 40)]},
        fingerprint="waves",
    )
    for start, stop in writer.pending():
        writer.write(start, values[start:stop])
    writer.finish()


class Training:
    """tensors -> train -> model, training_history -> judge -> verdict, by the project's hook and runner."""

    def __init__(self, folder, case="case"):
        self.folder = folder / "layer" / case
        if not (self.folder / "tensors").exists():
            self.folder.mkdir(parents=True)
            write_tensors(self.folder / "tensors")
        self.pipeline = Pipeline(
            [
                Node(
                    train_network,
                    ["tensors", "checkpoints", "params:model", "params:train", "params:seed"],
                    ["model", "training_history"],
                    name="train",
                ),
                Node(judge, "model", "verdict", name="judge"),
            ]
        )

    def run(self, *, force=False, seed=0, **train):
        """Give what ran, and why."""
        raw = {
            "ingest": {"variables": ["temperature"]},
            "model": {"base_channels": 4, "depth": 1},
            "train": {"epochs": 1, "batch_size": 4, "learning_rate": 3e-3, "device": "cpu", **train},
            "force": force,
            "seed": seed,
        }
        typed = validate_parameters(raw)

        def path(name):
            return str(self.folder / name)

        catalog = DataCatalog(
            {
                "parameters": MemoryDataset(raw),
                "params:model": MemoryDataset(typed.model, copy_mode="assign"),
                "params:train": MemoryDataset(typed.train, copy_mode="assign"),
                "params:seed": MemoryDataset(seed),
                "tensors": TensorStoreDataset(filepath=path("tensors")),
                "checkpoints": CheckpointsDataset(filepath=path("checkpoints")),
                "model": ForecasterDataset(filepath=path("model")),
                "training_history": WholeDataset(
                    filepath=path("history.csv"),
                    dataset={"type": "pandas.CSVDataset", "save_args": {"index": False}},
                ),
                "verdict": WholeDataset(filepath=path("verdict.txt"), dataset="text.TextDataset"),
            }
        )
        hook, manager = IncrementalHook(), _create_hook_manager()
        manager.register(hook)
        try:
            hook.before_pipeline_run({"runner": "IncrementalRunner"}, self.pipeline, catalog)
            reasons = {entry.node.name: entry.reason for entry in hook.plan if entry.runs}
            IncrementalRunner().run(self.pipeline, catalog, manager)
        finally:
            hook.release()
        return reasons

    def model(self):
        return ForecasterDataset(filepath=str(self.folder / "model")).load()

    def weights(self):
        return load_file(self.folder / "model" / "model.safetensors")

    def record(self, name="model"):
        return read_record(self.folder / name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One epoch; the tests below go on from it in order."""
    training = Training(tmp_path_factory.mktemp("resumed"))
    assert set(training.run()) == {"train", "judge"}
    return training


def test_the_old_weights_are_not_registered_as_those_of_another_rate(trained):
    before = trained.record()
    with pytest.raises(CheckpointError, match="nothing would be trained with what changed since"):
        trained.run(resume=True, learning_rate=1e-4)
    assert trained.record() == before
    assert trained.run() == {}
    # Resumed without a change, it stands as well.
    assert trained.run(resume=True) == {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"resume": True, "batch_size": 5}, CheckpointError),
        ({"learning_rate": 1e30, "seed": 3}, NonFiniteError),
    ],
)
def test_refused_attempts_leave_the_model_its_record_and_the_checkpoints(trained, options, error):
    def state():
        return {
            str(path): path.read_bytes()
            for path in sorted(trained.folder.rglob("*"))
            if path.is_file() and path.suffix != ".lock"
        }

    before = state()
    with pytest.raises(error):
        trained.run(**options)
    assert state() == before
    assert trained.run() == {}


def test_what_cannot_be_resumed_is_told_before_any_stage_runs(trained, monkeypatch):
    monkeypatch.setattr(IncrementalRunner, "run", lambda *_: pytest.fail("a stage was run"))
    for options, told in (
        ({"batch_size": 5}, "batch_size: 4 then, 5 now"),
        ({"learning_rate": 1e-4}, "learning_rate: 0.003 then, 0.0001 now"),
        ({"loss": "mae"}, "loss: mse then, mae now"),
    ):
        with pytest.raises(CheckpointError, match=told):
            trained.run(resume=True, **options)


def test_a_continued_training_is_a_model_of_its_own(trained):
    first = trained.record().fingerprint
    reasons = trained.run(resume=True, epochs=2, learning_rate=1e-3)
    assert reasons["train"] == f"changed: params:train, {plan_module._IN_WORDS[plan_module.HISTORY]}"
    continued = trained.record()
    assert continued.fingerprint != first
    assert continued.parts[plan_module.HISTORY]
    # What lies downstream was made of this very model.
    assert stored_record(trained.folder / "verdict.txt").parts["model"] == continued.fingerprint
    assert trained.run(resume=True, epochs=2, learning_rate=1e-3) == {}
    tags = history_tags(trained.model())
    assert tags["training.phases"] == "2"
    assert tags["training.history"] == (
        "from epoch 1 (steps 1 to 6): epochs 1, learning_rate 0.003, schedule constant, weight_decay 1e-05, batch_size 4; "
        "from epoch 2 (steps 7 to 12): epochs 2 (before: 1), learning_rate 0.001 (before: 0.003)"
    )


def test_a_plain_run_trains_from_the_start_what_was_only_continued(trained):
    continued = trained.weights()
    reasons = trained.run(epochs=2, learning_rate=1e-3)
    assert reasons["train"] == f"changed: {plan_module._IN_WORDS[plan_module.HISTORY]}"
    assert reasons["judge"] == "changed: model"
    assert [p["first_step"] for p in trained.model().trained_with["phases"]] == [0]
    anew = trained.weights()
    assert any((continued[name] != anew[name]).any() for name in anew)
    assert trained.run(epochs=2, learning_rate=1e-3) == {}


def test_other_code_at_the_resumption_is_told_in_the_identity(trained, monkeypatch):
    digest = plan_module.code_digest
    monkeypatch.setattr(plan_module, "code_digest", lambda function: digest(function) + "changed")
    reasons = trained.run(resume=True, epochs=3, learning_rate=1e-3)
    assert "its code" in reasons["train"]
    assert trained.record().parts[plan_module.HISTORY]
    assert trained.run(resume=True, epochs=3, learning_rate=1e-3) == {}


@pytest.fixture
def renamed(tmp_path):
    """A case with a model and checkpoints, and the same case under another name, which has the tensors only."""

    def rename():
        shutil.copytree(tmp_path / "layer" / "case" / "tensors", tmp_path / "layer" / "renamed" / "tensors")
        return Training(tmp_path, "renamed")

    return Training(tmp_path), rename


def checkpoints(training):
    folder = training.folder / "checkpoints"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_checkpoints_come_along_with_the_model_where_a_case_is_renamed(renamed):
    before, rename = renamed
    before.run()
    kept = checkpoints(before)
    after = rename()
    assert after.run() == {}
    assert checkpoints(after) == kept and kept
    assert "train" in after.run(resume=True, epochs=2)
    assert len(after.model().trained_with["phases"]) == 2
    assert checkpoints(before) == kept


def test_checkpoints_of_an_unfinished_training_come_along_where_it_is_resumed(renamed):
    before, rename = renamed
    before.run()
    for name in ("model", "history.csv", "verdict.txt"):
        remove_record(before.folder / name)
    after = rename()
    after.run(resume=True)
    newest = CheckpointsDataset(filepath=str(after.folder / "checkpoints")).newest()
    assert newest.step == STEPS and checkpoints(after) == checkpoints(before)
    assert all(path.stat().st_nlink > 1 for path in newest.path.iterdir())


def test_checkpoints_of_another_training_and_over_own_ones_are_not_taken(renamed):
    before, rename = renamed
    before.run()
    after = rename()
    own = CheckpointsDataset(filepath=str(after.folder / "checkpoints"))
    newest = CheckpointsDataset(filepath=str(before.folder / "checkpoints")).newest()
    digests = dict(newest.phases[-1].digests)
    assert not adopt_checkpoints(own, {**digests, "tensors": "others"})
    (after.folder / "checkpoints" / "superseded").mkdir(parents=True)
    assert not adopt_checkpoints(own, digests)
    shutil.rmtree(after.folder / "checkpoints")
    assert adopt_checkpoints(own, digests) and own.is_of(digests)
