"""A saved model: two files, of which a save that was interrupted never leaves one without its like."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from weathermill.errors import ModelError
from weathermill.tensors.files import sealed_json, sha256_of, unseal_json, write_atomic, writing

logger = logging.getLogger(__name__)

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "model.json"
#: The weights that the JSON belongs to, while others take their place.
PREVIOUS_FILE = "model.safetensors.previous"

_REMEDY = "Bring back a copy of the model, or train it again: `kedro run --params force=train`."


def write_model(folder: Path, weights: bytes, metadata: dict[str, Any]) -> None:
    """Write a model; whenever this is interrupted, `read_model` gives the model before it, or this one.

    The JSON, written last, holds the SHA-256 of the weights and so decides which model it is. Until then the weights of
    the model before are kept under a name of their own.

    Parameters
    ----------
    folder
        Made where missing.
    weights
        A safetensors file.
    metadata
        Goes to the JSON, sealed.

    Raises
    ------
    UnwritableOutputError
        If the system refuses to write.
    """
    with writing(folder, "the model"):
        folder.mkdir(parents=True, exist_ok=True)
        previous = folder / PREVIOUS_FILE
        if _belongs(folder / WEIGHTS_FILE):
            previous.unlink(missing_ok=True)
            _link(folder / WEIGHTS_FILE, previous)
        write_atomic(folder / WEIGHTS_FILE, weights)
        digest = hashlib.sha256(weights).hexdigest()
        write_atomic(folder / CONFIG_FILE, sealed_json({**metadata, "weights_sha256": digest}))
        previous.unlink(missing_ok=True)


def read_model(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Read what `write_model` wrote: metadata and weights.

    Raises
    ------
    ModelError
        When a file is missing or damaged, or they do not belong together.
    """
    weights = folder / WEIGHTS_FILE
    try:
        metadata = unseal_json((folder / CONFIG_FILE).read_bytes())
        data = weights.read_bytes()
        if hashlib.sha256(data).hexdigest() == metadata["weights_sha256"]:
            return metadata, data
        if _belongs(folder / PREVIOUS_FILE):
            logger.warning("%s: saving another model was interrupted; this is the one before", folder)
            return metadata, (folder / PREVIOUS_FILE).read_bytes()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The model cannot be read: {error}.", where=str(folder), remedy=_REMEDY) from error
    raise ModelError(
        "The weights do not match the checksum in model.json.", where=str(weights), remedy=_REMEDY
    )


def _belongs(weights: Path) -> bool:
    """Whether weights are those that the JSON beside them names."""
    try:
        metadata = unseal_json((weights.parent / CONFIG_FILE).read_bytes())
        return sha256_of(weights) == metadata["weights_sha256"]
    except (OSError, ValueError, KeyError):
        return False


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
