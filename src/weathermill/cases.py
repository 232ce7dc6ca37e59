"""Reading ``conf/``: Kedro's loader, and what a case may leave out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from weathermill.errors import ConfigurationError

#: The environment of settings for one machine that Kedro's template has; git ignores its files.
LOCAL = "local"
#: Inputs of the pipelines that only a case can name.
_SOURCES = ("raw_fields", "initial_fields")


class CaseConfigLoader(OmegaConfigLoader):
    """Kedro's ``OmegaConfigLoader`` with two defaults that follow the case instead of standing in ``conf/base``.

    - The global ``case``, the folder of everything that a run writes, is the name of the environment.
    - The catalog entry ``initial_fields``, what forecasts start from, is the case's own ``raw_fields``.

    A case's ``globals.yml`` and ``catalog.yml`` override them.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the merged configuration of one kind, such as ``catalog``.

        Raises
        ------
        kedro.config.MissingConfigException
            If the environment has no folder, or no file has this kind of configuration.
        """
        configuration = super().__getitem__(key)
        if key == "globals" and configuration.get("case") is None:
            return {**configuration, "case": self.environment}
        if key == "catalog" and "raw_fields" in configuration and "initial_fields" not in configuration:
            return {**configuration, "initial_fields": copy.deepcopy(configuration["raw_fields"])}
        return configuration

    @property
    def environment(self) -> str:
        """Name of the environment in use."""
        return self.env or self.default_run_env

    @property
    def cases(self) -> list[str]:
        """Names of all environments that can be run, in alphabetical order; none where ``conf/`` is no local folder."""
        folder = Path(self.conf_source)
        if not folder.is_dir():
            return []
        return sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != self.base_env
        )


def require_case(loader: CaseConfigLoader) -> None:
    """Refuse the environment ``base``, which holds what all cases share and is no case.

    Raises
    ------
    ConfigurationError
        Naming the cases there are.
    """
    if loader.environment == loader.base_env:
        raise ConfigurationError(
            f"conf/{loader.base_env} holds what all cases share and is no case of its own",
            where=f"--env={loader.environment}",
            remedy=f"Choose a case: {', '.join(loader.cases)}. Without --env it is {loader.default_run_env}.",
        )


def unread_local_files(loader: CaseConfigLoader) -> str:
    """Say which files in ``conf/local`` are not read because another environment is in use; empty where there are none."""
    folder = Path(loader.conf_source, LOCAL)
    if loader.environment == LOCAL or not folder.is_dir():
        return ""
    names = sorted(path.name for path in folder.rglob("*") if path.suffix in (".yml", ".yaml", ".json"))
    if not names:
        return ""
    return f"conf/{LOCAL} ({', '.join(names)}) is not read with --env={loader.environment}; --env={LOCAL} reads it"


def require_sources(pipeline: Pipeline, catalog: DataCatalog) -> None:
    """See that the case's catalog names the sources that a pipeline reads.

    Raises
    ------
    ConfigurationError
        If it does not, with the lines to write.
    """
    missing = [name for name in _SOURCES if name in pipeline.inputs() and name not in catalog]
    if missing:
        raise ConfigurationError(
            f"the catalog of this case names no {missing[0]}",
            where="conf/<env>/catalog.yml",
            remedy="Write there where the data lie: `raw_fields: {type: weathermill.datasets.RawFieldsDataset, filepath: …}`, "
            "with a path, a glob, a URL or a list of these; initial_fields are the same unless named.",
        )
