"""What a run that ended early says: where it stopped, and the command that goes on from there."""

from __future__ import annotations

import copy
import os
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weathermill.redaction import redact
from weathermill.tracking.reproduction import command_of


@dataclass(frozen=True)
class Progress:
    """How far a run came.

    Parameters
    ----------
    complete
        Nodes that ran and whose outputs are all saved.
    left
        Nodes that were to run and are not complete, in order.
    stage
        The node that was at work; empty before the first.
    forced
        Of those that are left, those that were forced to run.
    resumable
        Whether a checkpoint of the training that was to be made is there.
    """

    complete: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    stage: str = ""
    forced: tuple[str, ...] = ()
    resumable: bool = False


def going_on(options: Mapping[str, Any], code: int, progress: Progress) -> str:
    """Say how to go on with a run that did not end well.

    Parameters
    ----------
    options
        Of ``kedro run``.
    code
        The exit status: 128 and more for signals.
    progress
        How far it came.

    Returns
    -------
    str
        For the terminal, without credentials; empty for a run that was refused before its first stage: its own command,
        corrected as the error says, is what goes on.
    """
    command = redact(_command(options, progress))
    if code <= 128:
        begun = progress.left and (progress.stage or progress.complete)
        return f"When that is mended, this goes on with what is left:\n  {command}" if begun else ""
    where = f" in stage {progress.stage}" if progress.stage else " before the first stage"
    stands = f"; what {', '.join(progress.complete)} made stands" if progress.complete else ""
    return f"Stopped by {_name(code)}{where}{stands}. To go on:\n  {command}"


def _name(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"


def _command(options: Mapping[str, Any], progress: Progress) -> str:
    params = copy.deepcopy(dict(options.get("params") or {}))
    if params.get("force"):
        # What was forced and is complete need not be made a third time.
        params.pop("force")
        if progress.forced:
            params["force"] = " ".join(progress.forced)
    train = params.get("train")
    if progress.resumable:
        params["train"] = {**(train if isinstance(train, Mapping) else {}), "resume": True}
    words = command_of(
        {
            "env": options.get("env") or os.environ.get("KEDRO_ENV"),
            "pipeline_names": list(options.get("pipelines") or [])
            or ([options["pipeline"]] if options.get("pipeline") else []),
            **{
                name: options.get(name)
                for name in ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs")
            },
            "namespaces": options.get("namespaces"),
            "runtime_params": params,
        }
    )
    extra = [f"--conf-source={options['conf_source']}"] if options.get("conf_source") else []
    extra += [f"--runner={options['runner']}"] if options.get("runner") else []
    extra += ["--only-missing-outputs"] if options.get("only_missing_outputs") else []
    versions = options.get("load_versions") or {}
    extra += ["--load-versions=" + ",".join(f"{k}:{v}" for k, v in versions.items())] if versions else []
    runner_params = options.get("runner_params") or {}
    runner_params = {**runner_params, **({"is_async": True} if options.get("is_async") else {})}
    extra += (
        [f"--runner-params={','.join(f'{k}={v}' for k, v in runner_params.items())}"] if runner_params else []
    )
    return " ".join([words, *([shlex.join(extra)] if extra else [])])
