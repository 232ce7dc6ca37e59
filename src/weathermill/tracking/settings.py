"""Where and how runs are recorded: the contents of ``conf/<env>/mlflow.yml``, typed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from weathermill.errors import ParameterError


class TrackingSettings(BaseModel):
    """The contents of ``mlflow.yml``.

    Parameters
    ----------
    enabled
        Whether runs are recorded at all.
    tracking_uri
        An MLflow tracking URI. A ``sqlite:///`` URI with a relative path is relative to the project.
    experiment
        The name of the one experiment of the project; made if there is none.
    experiment_id
        The id of an experiment that exists, in place of its name.
    run_id
        A run to record to in place of a new one; from the environment only (MLFLOW_RUN_ID).
    artifact_location
        Where artefacts of a new experiment go; relative to the project. Null leaves it to the server.
    artifacts
        Catalog entries whose file or folder is logged once saved, each with its folder among the artefacts.
    metrics
        Catalog entries (mappings of numbers) that are logged as metrics once saved.
    lineage
        Catalog entries that are logged as inputs with their digest.
    model
        The catalog entry that is logged as the run's model.
    registered_model_name
        As what each run's model is registered, a name for each case; null leaves the registry alone.
    alias
        The alias that points to the newest version of a run that succeeded; null sets none.
    """

    model_config = ConfigDict(extra="forbid")

    enabled: bool = True
    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "weathermill"
    experiment_id: str | None = None
    run_id: str | None = None
    artifact_location: str | None = "mlartifacts"
    artifacts: dict[str, str] = {}
    metrics: list[str] = []
    lineage: list[str] = []
    model: str | None = "model"
    registered_model_name: str | None = None
    alias: str | None = "newest"

    @field_validator("alias")
    @classmethod
    def _may_be_an_alias(cls, value: str | None) -> str | None:
        # MLflow keeps these for itself, and would refuse only after the training.
        if value is not None and (value.lower() == "latest" or re.fullmatch(r"v\d+", value, re.IGNORECASE)):
            raise ValueError(f"MLflow does not allow {value!r} as an alias; choose another, such as 'newest'")
        return value

    @field_validator("registered_model_name")
    @classmethod
    def _may_be_a_model(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or re.search(r"[/:]", value)):
            raise ValueError(f"MLflow does not allow {value!r} as a model's name; leave out '/' and ':'")
        return value

    def resolved_uri(self, project: Path) -> str:
        """The tracking URI with a relative SQLite path made absolute against ``project``."""
        prefix = "sqlite:///"
        if self.tracking_uri.startswith(prefix) and not self.tracking_uri.startswith(prefix + "/"):
            return f"{prefix}{(project / self.tracking_uri.removeprefix(prefix)).resolve()}"
        return self.tracking_uri

    def digest(self, project: Path) -> str:
        """A digest of the tracking URI, which tells stores apart; the URI itself may hold a password."""
        return hashlib.sha256(self.resolved_uri(project).encode()).hexdigest()[:16]

    def resolved_artifacts(self, project: Path) -> str | None:
        """The artefact location as a URI, a relative path made absolute against ``project``."""
        if self.artifact_location is None or "://" in self.artifact_location:
            return self.artifact_location
        return (project / self.artifact_location).resolve().as_uri()


def tracking_settings(configuration: dict[str, Any]) -> TrackingSettings:
    """Check the contents of ``mlflow.yml``.

    Raises
    ------
    ParameterError
        If there are unknown or ill-typed keys.
    """
    try:
        return TrackingSettings.model_validate(configuration)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)
        )
        raise ParameterError(
            f"mlflow.yml: {faults}",
            remedy="Correct conf/<env>/mlflow.yml; conf/base/mlflow.yml shows what there is.",
        ) from None
