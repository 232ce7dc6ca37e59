from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import ParameterError, SplitError
from weathermill.verification.baselines import climatology
from weathermill.verification.regression import fit_regression

N, H, W = 400, 6, 8


@pytest.fixture(scope="module")
def markov():
    """A two-channel vector autoregression at every cell: anomaly' = M anomaly + noise, on a mean."""
    rng = np.random.default_rng(0)
    matrix = np.array([[0.8, 0.3e3], [0.0, 0.6]])
    noise = np.array([1e3, 1.0])[:, None, None]
    states = np.zeros((N, 2, H, W))
    for step in range(1, N):
        states[step] = np.einsum("cd,dhw->chw", matrix, states[step - 1]) + noise * rng.normal(size=(2, H, W))
    states += np.array([5e4, 280.0])[:, None, None]
    times = np.datetime64("2000-01-01T00", "ns") + 6 * np.arange(N) * np.timedelta64(1, "h")
    return matrix, states.astype(np.float32), times, climatology(states, times, kind="mean")


def test_multivariate_regression_recovers_the_process(markov):
    matrix, states, times, mean = markov
    fitted = fit_regression(states, times, [(0, N)], mean, [1, 2], 6.0, np.ones(H), kind="multivariate")
    for position, power in enumerate((1, 2)):
        expected = np.linalg.matrix_power(matrix, power)
        scale = np.array([[1, 1e3], [1e-3, 1]])
        np.testing.assert_allclose(fitted.coefficients[position] / scale, expected / scale, atol=0.04)
    result = fitted.forecast(states[10:12], times[10:12], [12.0])
    assert result.shape == (2, 1, 2, H, W)
    anomaly = states[10:12] - mean.at(times[10:12])
    expected = mean.at(times[12:14]) + np.einsum("cd,ndhw->nchw", fitted.coefficients[1], anomaly)
    np.testing.assert_allclose(result[:, 0], expected, rtol=1e-5)


def test_damped_persistence_beats_persistence_and_climatology_as_theory_says(markov):
    _, states, times, mean = markov
    fitted = fit_regression(states, times, [(0, N)], mean, [1, 4], 6.0, np.ones(H))
    forecast = fitted.forecast(states[:-4], times[:-4])
    for position, steps in enumerate((1, 4)):
        truth = states[steps : N - 4 + steps].astype(np.float64)
        anomaly = truth - mean.at(times[:1])
        initial = states[: N - 4].astype(np.float64) - mean.at(times[:1])
        correlation = (anomaly * initial).mean((0, 2, 3)) / np.sqrt(
            (anomaly**2).mean((0, 2, 3)) * (initial**2).mean((0, 2, 3))
        )
        error = np.sqrt(((forecast[:, position] - truth) ** 2).mean((0, 2, 3)))
        spread = np.sqrt((anomaly**2).mean((0, 2, 3)))
        np.testing.assert_allclose(error, spread * np.sqrt(1 - correlation**2), rtol=1e-3)
        off_diagonal = fitted.coefficients[position] * (1 - np.eye(2))
        assert not off_diagonal.any()


def test_runs_are_not_crossed_and_faults_are_told(markov):
    _, states, times, mean = markov
    reads = []

    def read(index):
        reads.append(index)
        return states[index]

    fit_regression(read, times, [(0, 5), (50, 55)], mean, [2], 6.0, np.ones(H))
    assert set(reads) <= set(range(5)) | set(range(50, 55))
    with pytest.raises(SplitError, match="longer than 8 steps"):
        fit_regression(read, times, [(0, 5)], mean, [8], 6.0, np.ones(H))
    with pytest.raises(ParameterError, match="unknown regression"):
        fit_regression(read, times, [(0, 5)], mean, [1], 6.0, np.ones(H), kind="deep")
    fitted = fit_regression(read, times, [(0, 5)], mean, [1], 6.0, np.ones(H))
    with pytest.raises(ParameterError, match="not fitted for 24 h"):
        fitted.forecast(states[:1], times[:1], [24])
