"""The channel table: which field, at which level, stands at which index of a tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from weathermill.errors import ParameterError

ROLES = ("prognostic", "forcing", "static")


@dataclass(frozen=True)
class Channel:
    """One two-dimensional field of the state.

    Parameters
    ----------
    name
        ``"geopotential_500"``, ``"2m_temperature"``: unique in its table.
    variable
        The canonical (ERA5 long) name of the variable.
    level
        Pressure in hPa, or None for surface and static fields.
    role
        ``"prognostic"`` (predicted), ``"forcing"`` (given at every time) or ``"static"`` (given once).
    units
        CF units of the physical field; the store holds it normalised.
    may_be_missing
        Whether cells of it may have no value (NaN), such as sea surface temperature over land.
    """

    name: str
    variable: str
    level: float | None = None
    role: str = "prognostic"
    units: str = ""
    may_be_missing: bool = False

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ParameterError(f"Channel {self.name!r} has role {self.role!r}; a role is one of {ROLES}.")
        if self.may_be_missing and self.role == "static":
            raise ParameterError(
                f"The static channel {self.name!r} may not have missing values: it is given once, and whole.",
                remedy="Fill it with `ingest.fill`.",
            )


class ChannelTable(Sequence[Channel]):
    """The channels of a store or a network in the order of their indices.

    Prognostic channels come first, then forcings, then statics; the first two kinds are the *dynamic* ones,
    which the store holds for every time.

    Parameters
    ----------
    channels
        In order.

    Raises
    ------
    ParameterError
        When a name occurs twice, roles are out of order, or nothing is prognostic.
    """

    def __init__(self, channels: Iterable[Channel]) -> None:
        self._channels = tuple(channels)
        self._index = {channel.name: i for i, channel in enumerate(self._channels)}
        repeated = [name for name, n in Counter(c.name for c in self._channels).items() if n > 1]
        if repeated:
            raise ParameterError(f"Channel names occur more than once: {', '.join(repeated)}.")
        ranks = [ROLES.index(channel.role) for channel in self._channels]
        if ranks != sorted(ranks):
            raise ParameterError(
                "Channels are out of order: prognostic ones come first, then forcings, then statics; found "
                + ", ".join(f"{c.name} ({c.role})" for c in self._channels)
                + "."
            )
        if not self._channels or self._channels[0].role != "prognostic":
            raise ParameterError("A channel table needs at least one prognostic channel.")

    @classmethod
    def from_dicts(cls, dicts: Iterable[Mapping[str, Any]]) -> ChannelTable:
        """Build the table from dictionaries with the keys of `Channel`; others are ignored."""
        return cls(
            Channel(
                name=str(d["name"]),
                variable=str(d["variable"]),
                level=None if d.get("level") is None else float(d["level"]),
                role=str(d.get("role", "prognostic")),
                units=str(d.get("units", "")),
                may_be_missing=bool(d.get("may_be_missing", False)),
            )
            for d in dicts
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Give JSON-ready dictionaries, the inverse of `from_dicts`.

        ``may_be_missing`` is left out where it is false, so that tables without missing values read as they always did.
        """
        dicts = [asdict(channel) for channel in self._channels]
        return [{k: v for k, v in d.items() if k != "may_be_missing" or v} for d in dicts]

    def __getitem__(self, key):  # type: ignore[override]
        return self._channels[key]

    def __len__(self) -> int:
        return len(self._channels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChannelTable) and self._channels == other._channels

    def __hash__(self) -> int:
        return hash(self._channels)

    def __repr__(self) -> str:
        return (
            f"ChannelTable({self.n_prognostic} prognostic, {self.n_forcing} forcing, {self.n_static} static: "
            f"{', '.join(self.names[:4])}{', …' if len(self) > 4 else ''})"
        )

    @property
    def names(self) -> list[str]:
        """Names in index order."""
        return [channel.name for channel in self._channels]

    def index(self, name, start: int = 0, stop: int | None = None) -> int:  # type: ignore[override]
        """Give the index of a channel by its name (or of a `Channel`).

        Raises
        ------
        ParameterError
            When there is no such channel; lists those that there are.
        """
        if isinstance(name, Channel):
            name = name.name
        if name not in self._index:
            raise ParameterError(f"There is no channel {name!r}; there are {', '.join(self.names)}.")
        return self._index[name]

    def __contains__(self, item: object) -> bool:
        return (item.name if isinstance(item, Channel) else item) in self._index

    def _of_role(self, role: str) -> list[int]:
        return [i for i, channel in enumerate(self._channels) if channel.role == role]

    @property
    def prognostic(self) -> list[int]:
        """Indices of the predicted channels."""
        return self._of_role("prognostic")

    @property
    def forcing(self) -> list[int]:
        """Indices of the channels that are given at every time."""
        return self._of_role("forcing")

    @property
    def static(self) -> list[int]:
        """Indices of the channels that are given once."""
        return self._of_role("static")

    @property
    def dynamic(self) -> list[int]:
        """Indices of prognostic and forcing channels, which a store holds for every time."""
        return self.prognostic + self.forcing

    @property
    def may_be_missing(self) -> list[int]:
        """Indices of the channels that may have missing values."""
        return [i for i, channel in enumerate(self._channels) if channel.may_be_missing]

    @property
    def n_prognostic(self) -> int:
        """Number of prognostic channels."""
        return len(self.prognostic)

    @property
    def n_forcing(self) -> int:
        """Number of forcing channels."""
        return len(self.forcing)

    @property
    def n_static(self) -> int:
        """Number of static channels."""
        return len(self.static)

    @property
    def n_dynamic(self) -> int:
        """Number of channels that a store holds for every time."""
        return self.n_prognostic + self.n_forcing
