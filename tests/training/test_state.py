from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from weathermill.errors import CheckpointError
from weathermill.training.state import (
    flatten,
    generator,
    random_state,
    seed_everything,
    set_random_state,
    unflatten,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def round_trip(tree):
    skeleton, tensors = flatten(tree)
    return unflatten(json.loads(json.dumps(skeleton)), tensors)


def test_trees_come_back_as_they_were():
    tree = {
        "optimiser": {
            "state": {0: {"exp_avg": torch.randn(3, 4)}, 1: {"step": torch.tensor(3.0)}},
            "lr": [1e-4],
        },
        "half": torch.randn(2).to(torch.bfloat16),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(7),
        "array": np.arange(6, dtype=np.uint32).reshape(2, 3),
        "mixed": (1, 2.5, None, True, "text", float("inf"), float("nan"), 2**100),
        "marks": {"$tensor": 1},
        "a.b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
        "nothing": {},
    }
    assert same(tree, round_trip(tree))


def test_torch_optimiser_state_survives():
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(torch.randn(4, 3)).square().sum().backward()
        optimiser.step()
    assert same(optimiser.state_dict(), round_trip(optimiser.state_dict()))


def test_tensors_are_copies():
    weight = torch.zeros(3)
    _, tensors = flatten({"w": weight})
    weight.add_(1)
    assert tensors["w"].sum() == 0


def test_objects_are_refused_with_their_place():
    with pytest.raises(CheckpointError, match=r"'a\.1' holds a set"):
        flatten({"a": [1, {2}]})


def test_random_streams_continue():
    seed_everything(3)
    torch.randn(5), random.random(), np.random.rand(2)
    state = round_trip(random_state())
    drawn = (torch.randn(4), random.random(), np.random.rand(3))
    seed_everything(99)
    set_random_state(state)
    assert same(drawn, (torch.randn(4), random.random(), np.random.rand(3)))


def test_generators_are_independent_by_purpose_epoch_and_rank():
    draws = {
        generator(*key).integers(2**62)
        for key in [
            (0, "shuffle", 0, 0),
            (0, "shuffle", 1, 0),
            (0, "shuffle", 0, 1),
            (0, "noise", 0, 0),
            (1, "shuffle"),
        ]
    }
    assert len(draws) == 5
    assert generator(7, "x", 2).integers(2**62) == generator(7, "x", 2).integers(2**62)
