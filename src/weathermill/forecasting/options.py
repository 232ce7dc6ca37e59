"""How a source of initial states is read: as that of the training was, but for what a forecast cannot know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from weathermill.errors import ParameterError
from weathermill.fields.choices import SourceOptions
from weathermill.fields.coordinates import LEVEL
from weathermill.fields.filling import DeferredClimatology, Rule, fill_missing
from weathermill.fields.missing import refuse_infinite
from weathermill.fields.plausibility import LIMITS, Limits, limits_of, with_limits
from weathermill.fields.vocabulary import WindAxes, flat_name, split_flat_name


@dataclass(frozen=True)
class ReadOptions:
    """What is said of the sources of initial states, as parameters of the ingest stage say it of those of training.

    Attributes
    ----------
    units, names, select, winds
        See :func:`weathermill.fields.conventions.canonicalise`. Names and dimensions that these sources do not have are
        passed over: a forecast may start from another product than the training took.
    fill
        Variable -> how its gaps are filled: a number, ``nearest`` or ``climatology``. The last is the mean of the
        training period, which is taken from these sources too, and only if a state has gaps.
    training
        [start, stop) of the training period; None where it is not known.
    limits
        Variable -> its physical limits (low, high), where they are not those of the vocabulary.
    """

    units: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    select: Mapping[str, Any] = field(default_factory=dict)
    winds: WindAxes = "as_said"
    fill: Mapping[str, Rule] = field(default_factory=dict)
    training: tuple[str | None, str | None] | None = None
    limits: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def of_canonicalise(self) -> dict[str, Any]:
        """Arguments of ``canonicalise``."""
        return {
            "units": self.units,
            "names": self.names,
            "select": self.select,
            "winds": self.winds,
            "strict": False,
        }

    @property
    def of_survey(self) -> SourceOptions:
        """Options of ``survey``."""
        return SourceOptions(self.names, self.select, self.units, strict=False, winds=self.winds)

    def limits_of(self, variable: str, level: float | None) -> Limits:
        """Return the physical limits of a channel by its variable and level (hPa)."""
        name = flat_name(variable, level)
        given = self.limits.get(name, self.limits.get(variable))
        return limits_of(name, None if given is None else {LIMITS: given})

    def prepared(self, fields: xr.Dataset) -> xr.Dataset:
        """Return canonical fields that refuse impossible values as they are read, with their gaps filled, lazily.

        Raises
        ------
        ParameterError
            Where levels of one variable that are read together have different rules; later, while gaps are filled by a
            climatology that is not known.
        """
        names = list(map(str, fields.data_vars))
        limits = {name: found for name in names if (found := _of(self.limits, fields[name])) is not None}
        fields = refuse_infinite(with_limits(fields, limits), names)
        rules = {name: found for name in names if (found := _of(self.fill, fields[name])) is not None}
        plain = {name: rule for name, rule in rules.items() if rule != "climatology"}
        fields = fill_missing(fields, plain)
        deferred = {
            name: DeferredClimatology(fields[name], self.training).apply()
            for name, rule in rules.items()
            if rule == "climatology"
        }
        return fields.assign(deferred)


def _of(table: Mapping[str, Any], field: xr.DataArray) -> Any:
    """Look a field up by its name; by that of its variable; or by those of all its levels, if they agree."""
    name = str(field.name)
    flat = split_flat_name(name)
    for key in (name, *([flat[0]] if flat else [])):
        if key in table:
            return table[key]
    if LEVEL not in field.dims:
        return None
    levels = [flat_name(name, float(level)) for level in field[LEVEL].values]
    found = [table.get(level) for level in levels]
    if any(entry != found[0] for entry in found):
        raise ParameterError(
            f"levels of {name} have different options in ingest.fill or ingest.limits, and are read together:"
            f" {', '.join(levels)}",
            remedy=f"Give {name} one option for all levels.",
        )
    return found[0]
