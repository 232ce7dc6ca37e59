"""The baseline rows of a published table, from the store of its case."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from weathermill.errors import ParameterError
from weathermill.pipelines.evaluate.card import grid_facts
from weathermill.progress import Progress
from weathermill.tensors.store import TensorStore
from weathermill.verification import times as clock
from weathermill.verification.weatherbench1 import (
    CHANNELS,
    baseline_page,
    baseline_table,
    baseline_text,
    departures,
)

logger = logging.getLogger(__name__)


def weatherbench1_baselines(tensors: TensorStore) -> tuple[pd.DataFrame, str]:
    """Compute the baseline rows of WeatherBench 1 and lay them beside the published ones, as a table and as a page.

    Climatologies are of all states before the test period (train and validation), as published.

    Raises
    ------
    ParameterError
        If the store has neither of the published channels.
    """
    names = [tensors.channels[i].name for i in tensors.channels.prognostic]
    chosen = [name for name in CHANNELS if name in names]
    if not chosen:
        raise ParameterError(
            f"the store holds neither {' nor '.join(CHANNELS)}, but {', '.join(names)}",
            remedy="Run the case that has them: --env=weatherbench1.",
        )
    positions = [names.index(name) for name in chosen]
    times = clock.from_seconds(tensors.times, tensors.calendar)
    training = [*tensors.splits["train"], *tensors.splits["validation"]]
    test = tensors.splits["test"]
    with Progress("baselines", 0, "batches") as progress:

        def counted(batches):
            batches = list(batches)
            progress.total += len(batches)
            for batch in batches:
                yield batch
                progress.update()

        table = baseline_table(
            lambda i: tensors.physical(i, i + 1)[0, positions],
            times,
            chosen,
            tensors.latitude,
            training_runs=training,
            test_runs=test,
            progress=counted,
        )
    notes = departures(
        tensors.grid_shape,
        tensors.time_step / 3600,
        times[np.concatenate([np.arange(a, b) for a, b in training])],
        times[np.concatenate([np.arange(a, b) for a, b in test])],
        simulated=bool(tensors.manifest["provenance"].get("simulated")),
    )
    logger.info("%s", baseline_text(table, notes))
    provenance = tensors.manifest["provenance"]
    facts = {
        "title": provenance.get("title") or "not stated",
        "files": ", ".join(s["location"].rsplit("/", 1)[-1] for s in provenance.get("sources", [])[:5])
        or "not stated",
        **grid_facts(tensors),
        "tensors": tensors.fingerprint,
    }
    return table, baseline_page(table, notes, facts)
