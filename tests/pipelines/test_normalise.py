"""The statistics pass sees every step of the training period, also of fields that were never stored."""

from __future__ import annotations

import numpy as np
import xarray as xr

from weathermill.fields.value_counts import attach_counts, count_field
from weathermill.parameters import IngestParameters, SplitParameters
from weathermill.pipelines.normalise.nodes import compute_statistics


def test_extremes_beyond_the_limits_are_warned_of_where_nothing_was_counted_before(caplog):
    values = (280 + np.random.default_rng(0).normal(size=(30, 2, 8, 16))).astype(np.float32)
    values[7, 1, 3, 4] = 900.0
    fields = xr.Dataset(
        {"temperature": (("time", "level", "latitude", "longitude"), values, {"units": "K"})},
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(30) * np.timedelta64(6, "h"),
            "level": [500.0, 850.0],
            "latitude": np.linspace(78.75, -78.75, 8),
            "longitude": np.arange(16) * 22.5,
        },
    )
    ingest = IngestParameters(variables=["temperature"])
    compute_statistics(fields, ingest, SplitParameters())
    (record,) = caplog.records
    assert "temperature_850: values of the training period run from" in record.getMessage()
    assert "to 900, beyond the physical limits 120 to 370" in record.getMessage()
    attach_counts(fields, {"temperature": count_field(values, fields["temperature"])})
    compute_statistics(fields, ingest, SplitParameters())
    assert len(caplog.records) == 1
