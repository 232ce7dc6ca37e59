"""Memory of stages is predicted from axes, bounded by the parameter, and refused where it surely does not suffice."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dask
import pytest
from kedro.pipeline.node import Node

from weathermill.errors import ResourceError
from weathermill.incremental import memory_estimates
from weathermill.incremental.memory_estimates import predict_memory, require_memory, threads
from weathermill.incremental.plan import NodePlan
from weathermill.incremental.shapes import Shapes
from weathermill.parameters import validate_parameters

GIB = 2**30
LARGE = Shapes(1460, 13, 65, 0, 0, (721, 1440), (181, 360))
FIELD_STAGES = ("ingest", "regrid", "compute_statistics", "write_tensors")


@pytest.fixture(autouse=True)
def held(monkeypatch):
    """What the process holds already, which would grow from one prediction to the next, is always the same here."""
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=650 * 2**20))
    monkeypatch.setattr(memory_estimates.psutil, "Process", lambda: process)


def parameters(**changes):
    return validate_parameters(
        {
            "ingest": {"variables": ["temperature"]},
            "model": {"base_channels": 4, "depth": 1},
            "train": {"device": "cpu"},
            **changes,
        }
    )


def predict(shapes, chosen, *names):
    plan = [NodePlan(Node(lambda: 1, None, "x", name=name), True, "", {}, {}) for name in names]
    return predict_memory(plan, shapes, chosen)


def work(shapes, chosen, name):
    return (
        predict(shapes, chosen, name)[name] - predict(shapes, chosen, "judge_regridding")["judge_regridding"]
    )


def test_stages_that_stand_and_unknown_data_are_left_out():
    assert predict(None, parameters(), "train") == {}
    skipped = NodePlan(Node(lambda: 1, None, "x", name="regrid"), False, "", {}, {})
    assert predict_memory([skipped], LARGE, parameters()) == {}


@pytest.mark.parametrize("cores", [2, 64])
@pytest.mark.parametrize("name", FIELD_STAGES)
def test_the_parameter_bounds_what_stages_of_fields_work_with(name, cores):
    """Not even with many cores, nor for long series, does a stage take more than it may."""
    with dask.config.set(num_workers=cores):
        unbounded = work(LARGE, parameters(), name)
        for budget in (8, 16, 64):
            bounded = work(LARGE, parameters(resources={"memory_gib": budget}), name)
            assert 0 < bounded <= budget * GIB
            assert bounded <= unbounded
            longer = work(replace(LARGE, times=100_000), parameters(resources={"memory_gib": budget}), name)
            assert longer == bounded


def test_threads_are_few_where_memory_is_little():
    with dask.config.set(num_workers=32):
        assert threads(parameters()) == 32
        assert threads(parameters(resources={"memory_gib": 1})) == 2
        assert threads(parameters(resources={"memory_gib": 8})) == 16


def test_larger_batches_networks_and_rollouts_take_more():
    small = Shapes(40, 2, 5, 0, 0, (32, 64), (31, 60))
    libraries = memory_estimates._LIBRARIES["train"] * 2**20
    least = work(small, parameters(), "train") - libraries
    for changes in (
        {"train": {"device": "cpu", "batch_size": 32}},
        {"train": {"device": "cpu", "rollout": [4]}},
        {"model": {"base_channels": 16, "depth": 1}},
    ):
        assert work(small, parameters(**changes), "train") - libraries > 1.2 * least
    few = work(small, parameters(evaluate={"batch_size": 1}), "evaluate")
    assert work(small, parameters(evaluate={"batch_size": 16}), "evaluate") > few


def test_a_stage_that_cannot_fit_is_refused_with_its_name(monkeypatch):
    monkeypatch.setattr(memory_estimates, "available_host_memory", lambda: 4 * GIB)
    require_memory({"train": 5 * GIB}, parameters())
    with pytest.raises(ResourceError, match=r"train will take about 20\.0 GiB") as caught:
        require_memory({"regrid": GIB, "train": 20 * GIB}, parameters())
    assert "train.batch_size" in str(caught.value) and "are free" in str(caught.value)
    with pytest.raises(ResourceError, match=r"2\.0 GiB may be used \(resources\.memory_gib\)") as caught:
        require_memory({"evaluate": 4 * GIB}, parameters(resources={"memory_gib": 2}))
    assert "evaluate.batch_size" in caught.value.remedy
