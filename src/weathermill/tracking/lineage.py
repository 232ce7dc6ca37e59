"""Where a result came from: catalog entries as MLflow inputs, each with a digest of its contents."""

from __future__ import annotations

import warnings

import mlflow
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT


def log_input(
    run_id: str,
    *,
    name: str,
    source: str,
    digest: str,
    context: str,
    client: mlflow.MlflowClient | None = None,
) -> None:
    """Log one input of a run.

    Nothing is read: the digest comes from whoever made the data.

    Parameters
    ----------
    run_id
        The run.
    name
        The catalog entry.
    source
        Its path or URL.
    digest
        A digest of its contents; MLflow keeps 36 characters.
    context
        What the run did with it, such as "read" or "made".
    client
        Of the store; of the current one when not given.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted")
        resolved = resolve_dataset_source(source)
    dataset = MetaDataset(source=resolved, name=name, digest=digest[:36])
    entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
    (client or mlflow.MlflowClient()).log_inputs(run_id, [entry])
