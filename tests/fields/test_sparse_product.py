from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from weathermill.fields.sparse_product import SparseOperator, promoted


def matrix(n_target=40, n_source=60, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.uniform(0.1, 1.0, (n_target, n_source)) * (rng.uniform(size=(n_target, n_source)) < 0.1)
    dense[3] = 0.0
    dense[~np.any(dense, axis=1) & (np.arange(n_target) != 3), 0] = 1.0
    dense[np.arange(n_target) != 3] /= dense[np.arange(n_target) != 3].sum(1, keepdims=True)
    row, col = np.nonzero(dense)
    return dense, row, col, dense[row, col]


def operator(**options) -> tuple[np.ndarray, SparseOperator]:
    dense, row, col, data = matrix()
    return dense, SparseOperator(row, col, data, n_target=40, n_source=60, **options)


@pytest.mark.parametrize("maps", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scipy(maps, dtype):
    dense, op = operator()
    x = np.random.default_rng(1).standard_normal((maps, 60)).astype(dtype)
    out = op.apply(x)
    expected = (scipy.sparse.csr_matrix(dense) @ x.T.astype(np.float64)).T
    assert out.dtype == dtype
    assert np.isnan(out[:, 3]).all()
    mapped = np.arange(40) != 3
    assert np.allclose(out[:, mapped], expected[:, mapped], rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_order_of_the_weights_is_of_no_account():
    _, row, col, data = matrix()
    shuffle = np.random.default_rng(2).permutation(row.size)
    x = np.random.default_rng(1).standard_normal((5, 60))
    a = SparseOperator(row, col, data, n_target=40, n_source=60).apply(x)
    b = SparseOperator(row[shuffle], col[shuffle], data[shuffle], n_target=40, n_source=60).apply(x)
    assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("maps", [1, 2, 4, 7])
def test_missing_values_are_renormalised_above_the_threshold(maps):
    dense, op = operator(minimum_valid=0.5)
    x = np.random.default_rng(3).standard_normal((maps, 60)) + 5.0
    x[np.random.default_rng(4).uniform(size=x.shape) < 0.4] = np.nan
    out = op.apply(x)
    for t in range(maps):
        valid = ~np.isnan(x[t])
        share = dense[:, valid].sum(1)
        expected = dense[:, valid] @ x[t, valid] / np.where(share > 0, share, 1.0)
        keep = (share >= 0.5) & (np.arange(40) != 3)
        assert keep.any() and not keep.all()
        assert np.allclose(out[t, keep], expected[keep], rtol=1e-12)
        assert np.isnan(out[t, ~keep]).all()


def test_missing_values_spread_through_real_weights_only():
    dense, row, col, data = matrix()
    row, col, data = np.append(row, 5), np.append(col, 59), np.append(data, 0.0)
    dense[5, 59] = 0.0
    keep = ~((row == 5) & (col == 59) & (data != 0.0))
    op = SparseOperator(row[keep], col[keep], data[keep], n_target=40, n_source=60, renormalise=False)
    x = np.ones((2, 60))
    x[:, 59] = np.nan
    out = op.apply(x)
    assert np.array_equal(np.isnan(out[0]), (dense[:, 59] > 0) | (np.arange(40) == 3))
    assert not np.isnan(out[0, 5])


def test_infinity_is_no_missing_value():
    dense, op = operator()
    x = np.ones((4, 60))
    x[1, 7] = np.inf
    out = op.apply(x)
    assert np.array_equal(np.isinf(out[1]), dense[:, 7] > 0)
    assert not np.isinf(out[[0, 2, 3]]).any()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("f2", "f4"),
        ("f4", "f4"),
        ("f8", "f8"),
        ("i2", "f4"),
        ("u1", "f4"),
        ("?", "f4"),
        ("i4", "f8"),
        (">f4", "f4"),
    ],
)
def test_types_are_promoted_never_truncated(dtype, expected):
    dense, op = operator()
    assert promoted(np.dtype(dtype)) == np.dtype(expected)
    x = (np.arange(120).reshape(2, 60) % 2).astype(dtype)
    out = op.apply(x)
    assert out.dtype == np.dtype(expected)
    mapped = np.arange(40) != 3
    assert np.allclose(out[:, mapped], (dense @ x.T.astype(float)).T[:, mapped], atol=1e-6)
    assert np.any((out[:, mapped] > 0.01) & (out[:, mapped] < 0.99))


def test_complex_maps_are_refused():
    with pytest.raises(TypeError, match="complex128"):
        promoted(np.dtype(complex))
