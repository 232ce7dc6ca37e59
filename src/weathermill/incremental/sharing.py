"""Taking an equal output of another environment instead of making it again."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from weathermill.datasets.checkpoints import CheckpointsDataset
from weathermill.datasets.local import staged
from weathermill.errors import StoreLockedError
from weathermill.incremental.locks import StoreLocks
from weathermill.incremental.plan import NodePlan
from weathermill.incremental.records import SUFFIX, Record, read_record, write_record

logger = logging.getLogger(__name__)


def find_equal(output: Path, fingerprint: str) -> Path | None:
    """Find an output of the same name and fingerprint in a folder beside the output's own.

    ``data/02_intermediate/<case>/fields.zarr`` of one case may so be found by another.
    """
    for record in sorted(output.parent.parent.glob(f"*/{output.name}{SUFFIX}")):
        other = record.with_name(output.name)
        if other == output:
            continue
        known = read_record(other)
        if known is not None and known.fingerprint == fingerprint:
            return other
    return None


def adopt(plan: NodePlan, outputs: dict[str, Path]) -> bool:
    """Take all outputs of a node from another environment, if it has equal ones; say whether it had.

    Files are hard links where the file system has them: no output is ever changed in place, so that both
    environments may keep, replace or delete theirs; datasets that write in place get a copy first (`unshare`). The outputs must be locked already.
    """
    found = {name: find_equal(path, plan.fingerprints[name]) for name, path in outputs.items()}
    if not outputs or not all(found.values()):
        return False
    locks = StoreLocks(wait=False)
    try:
        locks.acquire([], [path for path in found.values() if path is not None])
    except StoreLockedError:
        return False
    try:
        records: dict[str, Record | None] = {
            name: read_record(path) if path is not None else None for name, path in found.items()
        }
        if any(r is None or r.fingerprint != plan.fingerprints[name] for name, r in records.items()):
            return False
        # Equal outputs may come from several environments; here they belong together.
        execution = uuid.uuid4().hex
        for name, source in found.items():
            with staged(outputs[name]) as partial:
                _link(source, partial)
            write_record(outputs[name], replace(records[name], execution=execution))
            logger.info("%s: taken from %s, which is equal", name, source)
    finally:
        locks.release()
    return True


def adopt_checkpoints(own: CheckpointsDataset, digests: Mapping[str, str]) -> bool:
    """Take the checkpoints of the same training from another environment, if there are none here; say whether it had.

    They are of the same training where the newest one has the same digests of data, parameters and code. Files of
    checkpoints are never changed in place, so that hard links do.

    Parameters
    ----------
    own
        Where they go; locked already.
    digests
        Of the training, see `weathermill.training.history.Phase`.
    """
    target = own.path
    if target.is_dir() and any(target.iterdir()):
        return False
    for folder in sorted(target.parent.parent.glob(f"*/{target.name}")):
        if folder == target or not folder.is_dir() or not own.beside(folder).is_of(digests):
            continue
        locks = StoreLocks(wait=False)
        try:
            locks.acquire([], [folder])
        except StoreLockedError:
            continue
        try:
            # Another run may have pruned or replaced them until they were locked.
            if not own.beside(folder).is_of(digests):
                continue
            with staged(target) as partial:
                shutil.copytree(
                    folder,
                    partial,
                    copy_function=_link_file,
                    ignore=shutil.ignore_patterns("superseded", "*.partial", "*.deleted"),
                )
        finally:
            locks.release()
        logger.info("The checkpoints of %s, which are of the same training, are taken to %s", folder, target)
        return True
    return False


def unshare(output: Path) -> None:
    """Give files of an output that are hard links a copy of their own, before a dataset writes to them in place."""
    for path in [entry for entry in (output, *output.rglob("*")) if entry.is_file()]:
        if path.stat().st_nlink > 1:
            copy = path.with_name(path.name + ".partial")
            shutil.copy2(path, copy)
            copy.replace(path)


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_file)
    else:
        _link_file(str(source), str(target))


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
