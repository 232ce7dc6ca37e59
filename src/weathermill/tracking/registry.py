"""The registry of models: a version for each training, and an alias for the newest that succeeded."""

from __future__ import annotations

import logging

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

logger = logging.getLogger(__name__)

#: Tag of a logged model, by which a repeated operation finds what it has logged before.
KEY = "weathermill.key"
#: Tag of a version: when its network was trained, in milliseconds.
TRAINED = "weathermill.trained"


def logged_model_id(client: mlflow.MlflowClient, run_id: str, key: str) -> str | None:
    """Find the complete logged model of a run that an operation has logged before; None if there is none."""
    outputs = client.get_run(run_id).outputs
    for output in reversed(outputs.model_outputs if outputs is not None else []):
        logged = client.get_logged_model(output.model_id)
        if logged.tags.get(KEY) == key and str(logged.status) == "READY":
            return logged.model_id
    return None


def register(client: mlflow.MlflowClient, run_id: str, model_id: str, name: str, trained: int) -> str:
    """Register a logged model as the newest version of ``name``, once however often it is asked for.

    Parameters
    ----------
    client
        Of the store.
    run_id
        The run of the model.
    model_id
        The logged model.
    name
        The registered model, made if it is new.
    trained
        When the network was trained, in milliseconds.

    Returns
    -------
    str
        The version.
    """
    if (known := _version_of(client, run_id, name, model_id)) is not None:
        return str(known.version)
    try:
        client.create_registered_model(name, description="Forecast networks, one version for each training.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = mlflow.register_model(_uri(model_id), name, tags={TRAINED: str(trained)})
    logger.info("Registered as version %s of %s", made.version, name)
    return str(made.version)


def point_alias(client: mlflow.MlflowClient, run_id: str, model_id: str, name: str, alias: str) -> bool:
    """Have an alias point to the version of a logged model, unless it points to one that was trained later.

    Returns
    -------
    bool
        Whether it points to that version now.

    Raises
    ------
    MlflowException
        If the model is not registered under ``name`` (RESOURCE_DOES_NOT_EXIST), or whatever MLflow raises.
    """
    version = _version_of(client, run_id, name, model_id)
    if version is None:
        raise missing(f"there is no version of {name} for {_uri(model_id)}")
    current = _aliased(client, name, alias)
    if current is not None and _trained(current) > _trained(version):
        logger.info(
            "%s@%s stays at version %s, which was trained after version %s",
            name,
            alias,
            current.version,
            version.version,
        )
        return False
    client.set_registered_model_alias(name, alias, str(version.version))
    logger.info("models:/%s@%s is version %s", name, alias, version.version)
    return True


def missing(text: str) -> MlflowException:
    """The exception for what the registry does not have."""
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

    return MlflowException(text, error_code=RESOURCE_DOES_NOT_EXIST)


def _uri(model_id: str) -> str:
    return f"models:/{model_id}"


def _version_of(client: mlflow.MlflowClient, run_id: str, name: str, model_id: str) -> ModelVersion | None:
    for version in client.search_model_versions(f"name = '{_quoted(name)}' and run_id = '{run_id}'"):
        if _uri(model_id) == version.source or getattr(version, "model_id", None) == model_id:
            return version
    return None


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _aliased(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _trained(version: ModelVersion) -> int:
    """When a version was trained; when it was registered, where that is not known."""
    try:
        return int(version.tags[TRAINED])
    except (KeyError, ValueError):
        return int(version.creation_timestamp or 0)
