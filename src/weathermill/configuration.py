"""One check of the whole configuration of a run, so that all its faults are told at once and before any work."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import dask.utils
import yaml
from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from weathermill.errors import ConfigurationError, ModelError, ParameterError
from weathermill.faults import known_error
from weathermill.parameters import ModelParameters, Parameters, check_parameters
from weathermill.tracking.settings import tracking_settings

#: What is read of the configuration: globals first, since the others refer to them.
KINDS = ("globals", "parameters", "catalog", "credentials", "mlflow", "dask")


def _memory(value: str | float | None) -> str | float | None:
    """A limit of memory as Dask reads it: bytes, a share of what there is, or a text such as ``4GiB``."""
    if isinstance(value, str) and value != "auto":
        try:
            dask.utils.parse_bytes(value)
        except ValueError:
            raise ValueError("it is no amount of memory, such as 4GiB") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it must be finite")
    return value


class ClusterSettings(BaseModel):
    """``cluster`` in ``dask.yml``: arguments of ``distributed.LocalCluster``, of which the usual ones are checked."""

    model_config = ConfigDict(extra="allow")

    n_workers: int | None = Field(None, ge=0)
    threads_per_worker: int | None = Field(None, ge=1)
    processes: bool | None = None
    memory_limit: Annotated[str | int | float | None, AfterValidator(_memory)] = None


class DaskSettings(BaseModel):
    """The contents of ``dask.yml``: a local cluster, or null for threads; and Dask's own configuration."""

    model_config = ConfigDict(extra="forbid")

    cluster: ClusterSettings | None = None
    config: dict[str, Any] | None = None


def dask_faults(configuration: Any) -> list[str]:
    """Say what is wrong with the contents of ``dask.yml``, a line for each fault."""
    try:
        settings = DaskSettings.model_validate(configuration)
    except ValidationError as error:
        return [f"dask.yml: {_dask_fault(e)}" for e in error.errors(include_url=False)]
    if settings.cluster is not None and importlib.util.find_spec("distributed") is None:
        return ["dask.yml: a cluster needs distributed: pip install 'weathermill[cluster]', or cluster: null"]
    return []


def _dask_fault(error: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"] if part not in ("str", "int", "float"))
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown; known: {', '.join(DaskSettings.model_fields)}"
    if error["type"] == "model_type":
        return f"{name}: it must be null or a mapping, such as {{n_workers: 4}} (given: {error['input']!r})"
    return f"{name}: {error['msg'].removeprefix('Value error, ')} (given: {error['input']!r})"


def globals_faults(configuration: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with ``globals.yml``: ``case`` is the name of the folders that a run writes to."""
    case = configuration.get("case")
    if case is None:
        return []
    if not isinstance(case, str) or not case or case in (".", "..") or "/" in case or "\\" in case:
        return [
            f"globals.yml: case: it must be the name of a folder, in quotes if a number (given: {case!r})"
        ]
    return []


def device_fault(device: str) -> str:
    """Say that a device which ``train.device`` asks for is not there; empty if it is."""
    if device in ("auto", "cpu"):
        return ""
    # Importing torch takes seconds, which few commands need.
    from weathermill.training.engine import choose_device

    try:
        choose_device(device)
    except ParameterError as error:
        return f"train.device: {error.what} auto takes the best there is."
    return ""


def network_faults(model: ModelParameters) -> list[str]:
    """Say that the network of the parameters is not known, or that its module cannot be imported.

    The module is imported, so that models with its networks can be loaded.
    """
    if model.module is None and model.name in ("unet", "sfno"):
        return []
    # Importing torch takes seconds, which few commands need.
    from weathermill.models.own_networks import import_networks
    from weathermill.models.registry import available_networks, find_network

    try:
        if model.module is not None:
            import_networks(model.module)
        if model.name not in available_networks():
            # A module of the user's pipelines may register it.
            list(pipelines)
        find_network(model.name)
    except ModelError as error:
        name = "module" if error.where == "model.module" else "name"
        return [f"model.{name}: {error.what} {error.remedy or ''}".rstrip()]
    return []


def check_configuration(context: KedroContext) -> Parameters:
    """Check the files of the environment, and what parameters, ``mlflow.yml``, ``dask.yml`` and ``globals.yml`` say.

    A device that is absent is told with other faults only: alone it matters to runs that train, see
    `require_device`.

    Returns
    -------
    weathermill.parameters.Parameters
        The typed parameters.

    Raises
    ------
    ParameterError
        With one line for each fault: where, what is wrong and what was given.
    ConfigurationError
        Likewise, where files cannot be read and nothing else is wrong.
    """
    malformed: list[str] = []
    read = {name: _read(context, name, malformed) for name in KINDS}
    faults: list[str] = []
    # Not context.params: there Kedro's own validation stops at the first fault and tells it less plainly.
    parameters, found = check_parameters(read["parameters"]) if read["parameters"] is not None else (None, [])
    faults += found
    if parameters is not None:
        faults += network_faults(parameters.model)
    faults += globals_faults(read["globals"] or {})
    try:
        tracking_settings(read["mlflow"] or {})
    except ParameterError as error:
        faults.append(error.what)
    faults += dask_faults(read["dask"] or {})
    if parameters is not None and not faults and not malformed:
        return parameters
    if fault := device_fault(_device(read["parameters"])):
        faults.append(fault)
    told = list(dict.fromkeys([*malformed, *faults]))
    kind = ParameterError if faults else ConfigurationError
    what = "configuration" if len(told) > len(found) else "parameters"
    raise kind(
        f"{len(told)} fault{'s' if len(told) > 1 else ''} in the {what}:\n  " + "\n  ".join(told),
        remedy="Correct them in conf/<env>, in conf/base or on the command line.",
    )


def require_device(parameters: Parameters) -> None:
    """Refuse a run that would train on a device that is not there.

    Raises
    ------
    ParameterError
        Naming the device.
    """
    if fault := device_fault(parameters.train.device):
        raise ParameterError(fault)


def _device(parameters: Mapping[str, Any] | None) -> str:
    train = (parameters or {}).get("train")
    device = train.get("device") if isinstance(train, Mapping) else None
    return device if device in ("cuda", "mps") else "auto"


def _read(context: KedroContext, name: str, faults: list[str]) -> dict[str, Any] | None:
    """Read one kind of configuration; faults are noted, and None given."""
    try:
        return dict(context.config_loader[name])
    except (MissingConfigException, KeyError) as error:
        # Only parameters must be there; a KeyError is a kind of configuration that the loader does not know.
        if name != "parameters" and "valid directory" not in str(error):
            return {}
        raise
    except Exception as error:
        if found := _not_mappings(context, name):
            faults += found
        else:
            known = known_error(error)
            text = known.what if known is not None else str(error)
            merging = "Cannot merge" in text
            faults.append(
                f"{name}: conf/base and the environment do not fit together: {text}" * merging
                or f"{name}: {text}"
            )
        return None


def _not_mappings(context: KedroContext, name: str) -> list[str]:
    """Name the files of one kind that hold a list or a text in place of names and values; Kedro does not say which."""
    loader = context.config_loader
    source, faults = Path(loader.conf_source), []
    for folder in dict.fromkeys((loader.base_env, loader.env or loader.default_run_env)):
        for file in sorted((source / str(folder)).rglob(f"{name}*.y*ml")):
            with contextlib.suppress(OSError, yaml.YAMLError):
                contents = yaml.safe_load(file.read_text(encoding="utf-8"))
                if contents is not None and not isinstance(contents, dict):
                    kind = {list: "a list", str: "a text"}.get(type(contents), f"{contents!r}")
                    faults.append(f"{file.relative_to(source.parent)}: it holds {kind}, not names and values")
    return faults
