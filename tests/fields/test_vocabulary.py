from __future__ import annotations

import math

import pytest

from weathermill.fields.units import linear_conversion
from weathermill.fields.vocabulary import (
    CONVENTIONS,
    canonical_for_alias,
    convention_for,
    flat_name,
    split_flat_name,
)


@pytest.mark.parametrize("entry", CONVENTIONS.values(), ids=lambda entry: entry.name)
def test_every_convention_is_sound(entry):
    assert linear_conversion(entry.units, entry.units) == (1.0, 0.0)
    assert linear_conversion(entry.units + " ", entry.units) == (1.0, 0.0)
    assert entry.minimum < entry.maximum
    assert math.isfinite(entry.minimum) and math.isfinite(entry.maximum)
    assert entry.aliases
    assert split_flat_name(entry.name) is None


@pytest.mark.parametrize("on_levels", [True, False])
def test_no_alias_means_two_variables(on_levels):
    for entry in CONVENTIONS.values():
        if (entry.kind == "pressure") == on_levels:
            for alias in entry.aliases:
                assert canonical_for_alias(alias, on_levels=on_levels) == [entry.name], alias


def test_flat_names_split_and_join():
    assert split_flat_name("geopotential_500") == ("geopotential", 500.0)
    assert split_flat_name("z_500") == ("geopotential", 500.0)
    assert split_flat_name("u_component_of_wind_850") == ("u_component_of_wind", 850.0)
    assert split_flat_name("total_precipitation_24hr") is None
    assert split_flat_name("something_500") is None
    assert flat_name("temperature", 850.0) == "temperature_850"
    assert flat_name("2m_temperature", None) == "2m_temperature"
    assert convention_for("temperature_850") is CONVENTIONS["temperature"]
    assert convention_for("nothing") is None


def test_level_decides_what_z_means():
    assert canonical_for_alias("z", on_levels=True) == ["geopotential"]
    assert canonical_for_alias("z", on_levels=False) == ["geopotential_at_surface"]
