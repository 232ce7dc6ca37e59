from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from weathermill.esmf.search import STACK_SIZE, build_tree, element_boxes, find_overlaps, point_boxes


def _found(tree, box):
    found = np.empty(len(tree.order), dtype=np.int64)
    count = find_overlaps(*tree, np.asarray(box, dtype=np.float64), found, np.empty(STACK_SIZE, np.int64))
    return np.sort(found[:count])


@pytest.mark.parametrize("n", [1, 3, 4, 5, 64, 1000])
def test_the_tree_finds_what_a_full_search_finds(n):
    rng = np.random.default_rng(n)
    low = rng.uniform(-1, 0.9, (n, 3))
    boxes = np.hstack([low, low + rng.uniform(0, 0.3, (n, 3))]).astype(np.float32)
    tree = build_tree(boxes)
    assert np.array_equal(np.sort(tree.order), np.arange(n))
    for _ in range(20):
        corner = rng.uniform(-1, 0.8, 3)
        box = np.concatenate([corner, corner + rng.uniform(0, 0.5, 3)])
        expected = np.flatnonzero(
            (boxes[:, :3] <= box[3:]).all(axis=1) & (boxes[:, 3:] >= box[:3]).all(axis=1)
        )
        np.testing.assert_array_equal(_found(tree, box), expected)


def test_boxes_hold_the_bulge_of_large_cells():
    from weathermill.esmf.sphere import unit_vectors

    nodes = unit_vectors([0, 90, 90, 0], [10, 10, 80, 80])
    box = element_boxes(nodes, np.array([[0, 1, 2, 3]]))[0]
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(4), 500) @ nodes
    inside = shares / np.linalg.norm(shares, axis=1, keepdims=True)
    assert (inside >= box[:3]).all()
    assert (inside <= box[3:]).all()


def test_boxes_of_points_are_rounded_outwards():
    points = np.random.default_rng(1).uniform(-1, 1, (100, 3))
    boxes = point_boxes(points)
    assert (boxes[:, :3] < points).all()
    assert (boxes[:, 3:] > points).all()


def test_kernels_are_compiled_anew_when_a_file_they_call_changes(tmp_path):
    """Numba looks at a kernel's own file only; the fingerprint of the others is part of its type."""
    (tmp_path / "inner.py").write_text(
        "from numba import njit\n\n@njit(cache=True)\ndef value():\n    return 1\n", encoding="utf-8"
    )
    (tmp_path / "outer.py").write_text(
        "import inner\n"
        "from numba import njit\n"
        "from weathermill.esmf.search import source_fingerprint\n"
        "CALLED = source_fingerprint(inner)\n\n"
        "@njit(cache=True)\ndef value(called=CALLED):\n    return inner_value()\n\n"
        "from inner import value as inner_value\n",
        encoding="utf-8",
    )

    code = (
        "import sys; sys.path.insert(0, '.'); import outer\n"
        "print(outer.value(), sum(outer.value.stats.cache_hits.values()))"
    )

    def run():
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return tuple(int(word) for word in result.stdout.split())

    assert run() == (1, 0)
    assert run() == (1, 1)
    inner = tmp_path / "inner.py"
    inner.write_text(inner.read_text(encoding="utf-8").replace("return 1", "return 22"), encoding="utf-8")
    assert run() == (22, 0)
