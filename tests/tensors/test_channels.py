from __future__ import annotations

import pytest

from weathermill.errors import ParameterError
from weathermill.tensors.channels import Channel, ChannelTable


def table():
    return ChannelTable(
        [
            Channel("geopotential_500", "geopotential", 500.0, "prognostic", "m2 s-2"),
            Channel("2m_temperature", "2m_temperature", None, "prognostic", "K"),
            Channel("insolation", "insolation", None, "forcing", "W m-2"),
            Channel("land_sea_mask", "land_sea_mask", None, "static", "1"),
        ]
    )


def test_roles_select_indices():
    channels = table()
    assert channels.prognostic == [0, 1]
    assert channels.forcing == [2]
    assert channels.static == [3]
    assert channels.dynamic == [0, 1, 2]
    assert (channels.n_prognostic, channels.n_forcing, channels.n_static, channels.n_dynamic) == (2, 1, 1, 3)


def test_names_and_indices():
    channels = table()
    assert channels.index("insolation") == 2
    assert "2m_temperature" in channels
    assert "nothing" not in channels
    with pytest.raises(ParameterError, match=r"no channel 'nothing'.*geopotential_500"):
        channels.index("nothing")


def test_dicts_round_trip():
    channels = table()
    assert ChannelTable.from_dicts(channels.to_dicts()) == channels
    assert channels.to_dicts()[0]["level"] == 500.0


def test_order_of_roles_is_enforced():
    with pytest.raises(ParameterError, match="out of order"):
        ChannelTable([Channel("a", "a", role="static"), Channel("b", "b")])


def test_repeated_names_are_refused():
    with pytest.raises(ParameterError, match=r"more than once: a\."):
        ChannelTable([Channel("a", "a"), Channel("a", "a")])


def test_unknown_role_is_refused():
    with pytest.raises(ParameterError, match="role 'diagnostic'"):
        Channel("a", "a", role="diagnostic")


def test_something_must_be_predicted():
    with pytest.raises(ParameterError, match="at least one prognostic"):
        ChannelTable([Channel("a", "a", role="forcing")])
