"""What cannot be made again is refused, and what was compared is counted."""

from __future__ import annotations

import pytest

from weathermill.errors import ReproductionError
from weathermill.incremental.relocation import Relocation
from weathermill.tracking.making_again import Comparison, require_reproducible
from weathermill.tracking.reproduction import Reproduction


def run(*, ran=True, resume=False, status="FINISHED", **tags):
    description = {
        "command": "kedro run --pipelines=train",
        "parameters": {"train": {"resume": resume}},
        "nodes": {"train": {"ran": ran, "parts": {"tensors": "t", "checkpoints": ""}, "outputs": {}}},
    }
    return Reproduction("abc", description, "", False, (), (), (), tags, status)


def test_a_run_that_made_nothing_is_refused_and_names_those_that_made_it():
    with pytest.raises(ReproductionError, match="made nothing") as caught:
        require_reproducible(run(ran=False, **{"upstream.model.run_id": "made-it", "upstream.x": "no"}))
    assert caught.value.remedy == "Reproduce the runs that made it: made-it"


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING"])
def test_a_run_that_did_not_end_well_is_refused(status):
    with pytest.raises(ReproductionError, match=f"did not come to its end \\({status}\\)"):
        require_reproducible(run(status=status))


def test_a_resumed_training_is_made_again_only_if_it_is_one_training():
    require_reproducible(run(resume=True, **{"training.phases": "1"}))
    with pytest.raises(ReproductionError, match="not recorded"):
        require_reproducible(run(resume=True))
    history = {"training.phases": "2", "training.history": "from epoch 1 ...; from epoch 9 ..."}
    with pytest.raises(ReproductionError, match=r"has 2 phases: from epoch 1 \.\.\.; from epoch 9"):
        require_reproducible(run(resume=True, **history))
    require_reproducible(run(resume=False))


def test_a_comparison_of_nothing_is_not_called_equal():
    empty = Comparison("new", {}, {}, ("rmse",))
    assert not empty.equal
    assert empty.text() == "run new: there are no metrics to compare\nnot made again, and not compared: rmse"


def test_a_comparison_says_how_many_metrics_of_which_stages_it_compared():
    good = Comparison("new", {"train": 5, "evaluate": 7}, {}, ("old",), ("model",), ("page",))
    assert good.equal
    assert good.text().splitlines() == [
        "run new: 12 of 12 metrics are equal at every step (train 5, evaluate 7)",
        "not made again, and not compared: old",
        "outputs with the same bytes: model",
        "outputs with other bytes: page",
    ]
    bad = Comparison("new", {"train": 5}, {"validation/loss": (1.0, 2.0)}, ())
    assert not bad.equal
    assert bad.text().splitlines() == [
        "run new: 4 of 5 metrics are equal at every step (train 5)",
        "  validation/loss: 1 -> 2",
    ]


def test_outputs_outside_of_the_project_are_not_mixed_up_when_they_move(tmp_path):
    relocation = Relocation(tmp_path / "again", tmp_path / "project", (), ())
    inside = relocation.moved(tmp_path / "project" / "data" / "06_models" / "model")
    assert inside == tmp_path / "again" / "data" / "06_models" / "model"
    outside = {relocation.moved(tmp_path / case / "model") for case in ("a", "b")}
    assert len(outside) == 2
    assert all(path.is_relative_to(tmp_path / "again") for path in outside)
