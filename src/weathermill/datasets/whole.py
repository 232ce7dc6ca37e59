"""Another dataset type's file or folder, written so that it is whole whenever it is there."""

from __future__ import annotations

from typing import Any

from kedro.io import AbstractDataset
from kedro.io.core import parse_dataset_definition

from weathermill.datasets.local import LocalDataset, require_intact, staged


class WholeDataset(LocalDataset):
    """Saves with another dataset type to a temporary name, and renames that once it is complete.

    A type that opens a text file does so as UTF-8, whatever the locale, unless its ``fs_args`` say otherwise.

    Parameters
    ----------
    filepath
        A local file or folder.
    dataset
        The type that reads and writes, with its other arguments.
    metadata
        Free metadata, ignored by Kedro.

    Example
    -------
    .. code-block:: yaml

        summary:
          type: weathermill.datasets.WholeDataset
          filepath: data/08_reporting/summary.txt
          dataset: {type: text.TextDataset}
    """

    def __init__(
        self, *, filepath: str, dataset: str | dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._configuration = _in_utf8({"type": dataset} if isinstance(dataset, str) else dict(dataset))
        self._inner(filepath)

    @property
    def arguments(self) -> dict[str, Any]:
        """The other type and its arguments, of which what is on disk depends."""
        return self._configuration

    @property
    def kinds(self) -> tuple[type, ...]:
        """The types whose code decides what is on disk and what is loaded from it."""
        return type(self), parse_dataset_definition({**self._configuration, "filepath": ""})[0]

    def _inner(self, filepath: Any) -> AbstractDataset:
        return AbstractDataset.from_config(
            self._filepath.name, {**self._configuration, "filepath": str(filepath)}
        )

    def load(self) -> Any:
        """Load with the other type."""
        if self._filepath.exists():
            require_intact(self._filepath)
        return self._inner(self._filepath).load()

    def save(self, data: Any) -> None:
        """Save with the other type, beside; then rename."""
        with staged(self._filepath) as partial:
            self._inner(partial).save(data)

    def preview(self) -> Any:
        """What the other type shows in Kedro-Viz."""
        inner = self._inner(self._filepath)
        return inner.preview() if hasattr(inner, "preview") else None

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "dataset": self._configuration["type"]}


def _in_utf8(configuration: dict[str, Any]) -> dict[str, Any]:
    """Add the encoding wherever a type of kedro-datasets opens its file in text mode: it takes the locale's."""
    kind, _ = parse_dataset_definition({**configuration, "filepath": ""})
    given = dict(configuration.get("fs_args") or {})
    for purpose, defaults in getattr(kind, "DEFAULT_FS_ARGS", {}).items():
        arguments = {**defaults, **(given.get(purpose) or {})}
        if "mode" in arguments and "b" not in arguments["mode"] and "encoding" not in arguments:
            given[purpose] = {**(given.get(purpose) or {}), "encoding": "utf-8"}
    return {**configuration, "fs_args": given} if given else configuration
