"""The sums over the sphere that all scores are made of, in one pass over the fields."""

from __future__ import annotations

import numba
import numpy as np

#: What the kernel sums, weighted by area, with the anomalies f' = forecast - climatology, o' = truth -
#: climatology: the weight, o', o'^2, |o'|, f', f'^2, f'o', squared error, absolute error.
MOMENTS = ("weight", "o", "oo", "abs_o", "f", "ff", "fo", "ee", "abs_e")


def runs_of_patterns(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a grid into runs of cells along rows that belong to the same set of regions.

    Sums per pattern of membership, added up per region afterwards, visit every cell once however many regions
    overlap there.

    Parameters
    ----------
    masks
        Boolean (region, latitude, longitude).

    Returns
    -------
    runs
        int64 (run, 4): row, first column, column after the last, pattern. Cells in no region are left out.
    membership
        float64 (region, pattern): 1 where the pattern belongs to the region.
    """
    n_regions, rows, columns = masks.shape
    patterns, index = np.unique(masks.reshape(n_regions, -1), axis=1, return_inverse=True)
    index = np.asarray(index).reshape(rows, columns)
    runs = []
    for row in range(rows):
        edges = np.flatnonzero(np.diff(index[row])) + 1
        starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [columns]])
        runs += [
            (row, start, stop, index[row, start])
            for start, stop in zip(starts, stops, strict=True)
            if patterns[:, index[row, start]].any()
        ]
    return np.asarray(runs, dtype=np.int64).reshape(-1, 4), patterns.astype(np.float64)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
def accumulate_moments(
    forecast, truth, climatology, reference, weights, runs, has_climatology, out
):  # pragma: no cover
    """Add the area-weighted moments of one initial time to ``out``; float64 sums of any floating input.

    A cell counts where the truth, the climatology (if there is one) and the reference are finite. A forecast
    that is missing where those are not makes its sums NaN: a forecast must not gain by failing.

    Parameters
    ----------
    forecast, truth
        (lead, channel, latitude, longitude), C order.
    climatology
        As ``truth``, read only if ``has_climatology``.
    reference
        (channel, latitude, longitude): the initial state, for its missing values; all zero where there is
        none.
    weights
        float64 (latitude, longitude).
    runs
        From `runs_of_patterns`.
    has_climatology
        Whether to subtract ``climatology``; otherwise anomalies are the values themselves.
    out
        float64 (lead, channel, pattern, len(MOMENTS)).
    """
    for lead in range(truth.shape[0]):
        for channel in range(truth.shape[1]):
            for run in range(runs.shape[0]):
                row, start, stop, pattern = runs[run, 0], runs[run, 1], runs[run, 2], runs[run, 3]
                s_w = s_o = s_oo = s_ao = s_f = s_ff = s_fo = s_ee = s_ae = 0.0
                for column in range(start, stop):
                    f = np.float64(forecast[lead, channel, row, column])
                    o = np.float64(truth[lead, channel, row, column])
                    if has_climatology:
                        c = np.float64(climatology[lead, channel, row, column])
                        f -= c
                        o -= c
                    # Not np.isfinite: it is compiled to x - x == 0, which reassociation folds to true.
                    if not (abs(o) < np.inf and abs(reference[channel, row, column]) < np.inf):
                        continue
                    w = weights[row, column]
                    e = f - o
                    s_w += w
                    s_o += w * o
                    s_oo += w * o * o
                    s_ao += w * abs(o)
                    s_f += w * f
                    s_ff += w * f * f
                    s_fo += w * f * o
                    s_ee += w * e * e
                    s_ae += w * abs(e)
                out[lead, channel, pattern, 0] += s_w
                out[lead, channel, pattern, 1] += s_o
                out[lead, channel, pattern, 2] += s_oo
                out[lead, channel, pattern, 3] += s_ao
                out[lead, channel, pattern, 4] += s_f
                out[lead, channel, pattern, 5] += s_ff
                out[lead, channel, pattern, 6] += s_fo
                out[lead, channel, pattern, 7] += s_ee
                out[lead, channel, pattern, 8] += s_ae
