"""One field in two forms, each in a file of its own: both count, each at the times and levels that it has."""

from __future__ import annotations

import cftime
import numpy as np
import pytest

from weathermill.errors import MissingLevelError
from weathermill.fields.conventions import canonicalise
from weathermill.fields.vocabulary import STANDARD_GRAVITY


@pytest.fixture
def january(make_source):
    """Geopotential of the first six steps."""
    source = make_source(names=("z",), units="m2 s-2", base=50000.0)
    return source.assign(z=source["z"].assign_attrs(standard_name="geopotential"))


@pytest.fixture
def february(make_source):
    """Geopotential height of the six steps from the fifth on, as if of another product: 100 m higher."""
    source = make_source(names=("gh",), units="m", base=5200.0, start="2020-01-02")
    return source.assign(gh=source["gh"].assign_attrs(standard_name="geopotential_height"))


@pytest.mark.parametrize("turned", [False, True])
def test_geopotential_of_one_file_and_height_of_another_are_joined_in_time(january, february, turned):
    findings = []
    sources = [february, january] if turned else [january, february]
    fields = canonicalise(sources, variables=["geopotential"], findings=findings)
    assert fields.sizes["time"] == 10
    np.testing.assert_array_equal(fields["geopotential"][:6], january["z"])
    np.testing.assert_allclose(fields["geopotential"][6:], STANDARD_GRAVITY * february["gh"][2:], rtol=1e-6)
    assert any("made of geopotential_height" in finding.message for finding in findings)
    heights = canonicalise(sources, variables=["geopotential_height"])["geopotential_height"]
    np.testing.assert_allclose(heights[:4], january["z"][:4] / STANDARD_GRAVITY, rtol=1e-6)
    np.testing.assert_array_equal(heights[4:], february["gh"])


def test_levels_that_one_form_lacks_come_from_the_other(january, february):
    low = january.sel(level=[850.0])
    high = february.assign_coords(time=january["time"]).sel(level=[500.0])
    fields = canonicalise([low, high], variables=["geopotential"])
    np.testing.assert_array_equal(fields["geopotential"].sel(level=850), low["z"][:, 0])
    np.testing.assert_allclose(
        fields["geopotential"].sel(level=500), STANDARD_GRAVITY * high["gh"][:, 0], rtol=1e-6
    )
    flat = canonicalise([low, high], variables=["geopotential_500", "geopotential_850"])
    np.testing.assert_array_equal(flat["geopotential_500"], fields["geopotential"].sel(level=500))
    with pytest.raises(MissingLevelError, match="it is offered at 500, 850 hPa"):
        canonicalise([low, high], variables=["geopotential_300"])


def test_a_form_that_adds_nothing_is_not_read(january, february):
    twin = february.assign_coords(time=january["time"])
    findings = []
    fields = canonicalise([january, twin], variables=["geopotential"], findings=findings)
    np.testing.assert_array_equal(fields["geopotential"], january["z"])
    assert not any("made of" in finding.message for finding in findings)


def test_two_forms_are_joined_in_other_calendars_too(january, february):
    def noleap(source, first):
        days = [cftime.DatetimeNoLeap(2001, 1, first + i) for i in range(6)]
        return source.assign_coords(time=days)

    fields = canonicalise([noleap(january, 1), noleap(february, 5)], variables=["geopotential"])
    assert [time.day for time in fields["time"].values] == list(range(1, 11))


def test_times_at_which_a_field_could_be_made_of_others_are_told(make_source):
    read = make_source(names=("q",), units="kg kg-1", base=0.0) * 0.0 + 0.004
    read["q"].attrs = {"units": "kg kg-1", "standard_name": "specific_humidity"}
    other = make_source(names=("t", "r"), base=250.0, start="2020-01-02")
    other["r"] = (other["r"] * 0.0 + 50.0).assign_attrs(units="%", standard_name="relative_humidity")
    findings = []
    fields = canonicalise([read, other], variables=["specific_humidity"], findings=findings)
    assert fields.sizes["time"] == 6
    (told,) = [f for f in findings if f.severity == "warning"]
    assert (
        "read at 6 times; at 4 others no source has it, though it could be made from relative" in told.message
    )
