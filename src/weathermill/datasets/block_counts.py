"""What was counted of the values of each block of a store, kept with the block, and judged while the store grows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from weathermill.fields.value_counts import (
    ValueCounts,
    count_field,
    judge_values,
    raise_for_values,
    tell_values,
)

#: Counts of one block by variable.
Counts = dict[str, ValueCounts]

#: The file, beside the notes of a store, that holds the counts of every block.
FILE = "values.json"


def from_json(found: Mapping[str, Any]) -> Counts:
    """Return counts by variable; raises KeyError, TypeError, ValueError or AttributeError where they are none."""
    return {str(name): ValueCounts.from_json(entry) for name, entry in found.items()}


def to_json(counts: Counts) -> dict[str, Any]:
    """Return what `from_json` reads."""
    return {name: entry.to_json() for name, entry in sorted(counts.items())}


def read_blocks(folder: Path) -> dict[int, Counts]:
    """Return what was counted of each block of a store, from the folder of its notes; empty where nothing was."""
    try:
        blocks = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {int(block): from_json(found) for block, found in blocks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class BlockCounts:
    """Counts of the blocks that are written, and their sum.

    Parameters
    ----------
    fields
        What is written; its data is not read.
    warned
        Variables that were warned of when what the fields are made of was stored.
    """

    def __init__(self, fields: xr.Dataset, warned: Collection[str] = ()) -> None:
        self.fields, self.warned = fields, list(warned)
        self.blocks: dict[int, Counts] = {}
        self.total: Counts = {}

    def add(self, block: int, start: int, counts: Counts) -> None:
        """Add a block whose first time step is ``start``."""
        self.blocks[block] = counts
        self._sum({name: entry.moved(start) for name, entry in counts.items()})

    def add_static(self, static: xr.Dataset) -> None:
        """Add fields without time, which are in memory."""
        floating = [field for field in static.data_vars.values() if field.dtype.kind == "f"]
        self._sum({str(field.name): count_field(field.values, field) for field in floating})

    def _sum(self, counts: Counts) -> None:
        for name, entry in counts.items():
            self.total[name] = self.total[name].add(entry) if name in self.total else entry

    def require(self, where: Path) -> None:
        """Refuse what is wrong however the blocks to come may be.

        Raises
        ------
        ImplausibleValueError
            Where values are infinite, or too many beyond their limits.
        """
        found = []
        for name, counts in self.total.items():
            if counts.outside.any() or counts.infinite.any():
                field = self.fields[name]
                found += judge_values(field, counts, expected=field.size // counts.missing.size)
        raise_for_values(found, str(where))

    def tell(self, where: Path) -> None:
        """Tell what is wrong with the whole; raises as `require`."""
        tell_values(self.fields, self.total, known=self.warned, where=str(where))

    def write(self, folder: Path) -> None:
        """Write the counts of all blocks into the folder of a store's notes."""
        blocks = {str(block): to_json(self.blocks[block]) for block in sorted(self.blocks)}
        (folder / FILE).write_text(json.dumps(blocks), encoding="utf-8")
