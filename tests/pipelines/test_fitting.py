"""A network forecasts only from stores that it was trained for."""

from __future__ import annotations

import numpy as np
import pytest

from weathermill.errors import ModelError
from weathermill.pipelines.evaluate.fitting import require_fitting


def test_a_network_fits_the_store_that_it_was_made_for(store, network):
    require_fitting(store, network)


def test_other_channels_are_named(store, make_store, make_network, tmp_path):
    other = make_store(tmp_path / "other", static=True)
    with pytest.raises(ModelError, match="the store lacks land_sea_mask"):
        require_fitting(store, make_network(other))
    with pytest.raises(ModelError, match="the network does not know land_sea_mask") as caught:
        require_fitting(other, make_network(store))
    assert "kedro run --pipelines=train,evaluate" in caught.value.remedy


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("longitude", np.arange(16) * 22.5 + 11.25, "9 x 16 from 80 N, 11.25 E, and 9 x 16 from 80 N, 0 E"),
        ("latitude", np.linspace(90, -90, 19), "its grid is another"),
        ("time_step", 3600, "it steps 3600 s ahead, and the states of the store are 21600 s apart"),
    ],
)
def test_another_grid_or_step_is_refused(store, network, attribute, value, expected):
    setattr(network, attribute, value)
    with pytest.raises(ModelError, match=expected):
        require_fitting(store, network)
