"""Writing what a run makes to a folder of its own, so that everything that stands stays as it is."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from kedro.io import DataCatalog

from weathermill.errors import ReproductionError
from weathermill.incremental.plan import output_path


@dataclass(frozen=True)
class Relocation:
    """Where outputs go.

    Parameters
    ----------
    root
        The folder that takes them; paths below it are as those below the project.
    project
        The project's folder.
    datasets
        Names of all datasets of the pipeline.
    made
        Those of them that are written; datasets with the same path follow them.
    """

    root: Path
    project: Path
    datasets: Collection[str]
    made: Collection[str]

    def moved(self, path: Path) -> Path:
        """Where a path goes."""
        path = path if path.is_absolute() else self.project / path
        try:
            return self.root / path.resolve().relative_to(self.project.resolve())
        except ValueError:
            return self.root / "elsewhere" / hashlib.sha256(str(path).encode()).hexdigest()[:8] / path.name


_active: ContextVar[Relocation | None] = ContextVar("relocation", default=None)


@contextlib.contextmanager
def relocated(relocation: Relocation) -> Iterator[None]:
    """Inside, catalogs that are made have the outputs at their other place."""
    token = _active.set(relocation)
    try:
        yield
    finally:
        _active.reset(token)


def is_relocated() -> bool:
    """Whether outputs go to another place at present."""
    return _active.get() is not None


def relocate(catalog: DataCatalog) -> None:
    """Move the paths of a catalog's datasets, if outputs are to go to another place.

    Raises
    ------
    ReproductionError
        If an output is in no local file or folder.
    """
    relocation = _active.get()
    if relocation is None:
        return
    for name in relocation.datasets:
        catalog.get(name, fallback_to_runtime_pattern=True)
    paths = set()
    for name in relocation.made:
        dataset = catalog.get(name)
        if (path := output_path(dataset)) is not None:
            paths.add(path)
        elif getattr(dataset, "_filepath", None) is not None:
            raise ReproductionError(
                f"{name} is not on the local disk, and what stands there would be replaced",
                where=str(dataset._filepath),
                remedy="Run it with an environment whose catalog writes this entry to a local path.",
            )
    for name in relocation.datasets:
        dataset = catalog.get(name)
        if (path := output_path(dataset)) in paths:
            dataset._filepath = type(dataset._filepath)(str(relocation.moved(path)))
