"""The typed parameters of every pipeline, and one check of them all before any work.

Each top-level key of ``conf/<env>/parameters_*.yml`` is one model here. Unknown keys, wrong types and values outside
their range are all reported at once, by :func:`validate_parameters`, with the nearest known name.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from weathermill.errors import ParameterError
from weathermill.fields.timeaxis import parse_date
from weathermill.fields.vocabulary import name_fault

#: Names that verification gives to regions of its own.
STANDARD_REGIONS = ("global", "domain", "tropics", "extratropics_north", "extratropics_south")


def _iso(value: Any) -> Any:
    """Dates may be written without quotes in YAML, where they become date objects, and years numbers."""
    if isinstance(value, int) and not isinstance(value, bool) and 1000 <= value <= 9999:
        return str(value)
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value


def _plain(value: Any) -> Any:
    """A time may be written without quotes in YAML, where it becomes a date object."""
    return value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value


def _date(text: str) -> str:
    """Refuse what is no date in any calendar; 30 February is one in some."""
    try:
        (_, month, day, hour, *_), _ = parse_date(text)
    except ParameterError as error:
        raise ValueError(f"{error.what}; write it as 2020-01-31 or 2020-01-31T06:00") from error
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 23):
        raise ValueError(f"{text} is no date of any calendar")
    return text


IsoTime = Annotated[str, BeforeValidator(_iso), AfterValidator(_date)]


def _words(value: Any) -> Any:
    """A list may be one text, with blanks between."""
    return value.split() if isinstance(value, str) else value


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the values in nested lists and mappings."""
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    else:
        yield value


#: Axes that ``ingest.select`` has no part in, and what has.
_CHOSEN_OTHERWISE = {
    "time": "ingest.start and ingest.stop",
    "level": "ingest.levels",
    "latitude": "the regrid stage",
    "longitude": "the regrid stage",
}


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class IngestParameters(_Parameters):
    """What to take from the sources.

    ``levels`` are pressures in hPa; ``start`` and ``stop`` bound time half open, [start, stop), in ISO 8601;
    ``units`` gives the units of variables and coordinates whose file does not say them, or says them wrongly; ``names``
    gives canonical names to variables and coordinates by the file's name, before any recognition; ``select`` takes one
    value along dimensions beside time, level and place, such as a lead time or a member (``{step: 6h, number: 0}``).
    ``winds`` says along which axes winds on curvilinear grids lie, where the files say nothing or something wrong.
    ``allow_missing`` names the variables that may have missing values, which no loss and no score counts.

    ``forcing_variables`` are inputs of the network that it does not predict. ``missing_steps`` says what to do about
    whole steps that are missing: refuse, leave a gap that no training window crosses, or interpolate up to
    ``longest_interpolated`` of them. ``fill`` fills missing values of named variables by a number, by the nearest value
    or by the climatology of the training period. ``limits`` gives the physical limits (low, high) of variables in
    canonical units, where the vocabulary has none or too narrow ones. ``reduced_grids`` says whether sources on reduced Gaussian grids are
    refused, or expanded to the regular grid of the same rows, each row linearly along itself.
    """

    variables: list[str] = Field(min_length=0)
    levels: list[float] | None = None
    surface_variables: list[str] = []
    forcing_variables: list[str] = []
    static_variables: list[str] = []
    start: IsoTime | None = None
    stop: IsoTime | None = None
    units: dict[str, str] = {}
    names: dict[str, str] = {}
    select: dict[str, Annotated[str | int | float, BeforeValidator(_plain)]] = {}
    winds: Literal["as_said", "east_and_north", "grid"] = "as_said"
    missing_steps: Literal["refuse", "gap", "interpolate"] = "gap"
    longest_interpolated: int = Field(1, ge=1)
    fill: dict[str, float | Literal["nearest", "climatology"]] = {}
    allow_missing: list[str] = []
    limits: dict[str, tuple[float, float]] = {}
    reduced_grids: Literal["refuse", "expand"] = "refuse"

    @model_validator(mode="after")
    def _something(self) -> IngestParameters:
        if not self.variables and not self.surface_variables:
            raise ValueError(
                "name at least one of variables and surface_variables; `weathermill inspect <source>` prints"
                " what there is"
            )
        for name, target in self.names.items():
            if fault := name_fault(target):
                raise ValueError(f"names calls {name} {target!r}, {fault}")
        for axis, instead in _CHOSEN_OTHERWISE.items():
            if axis in self.select:
                raise ValueError(f"select names {axis}, which is chosen by {instead}")
        dynamic = {*self.variables, *self.surface_variables, *self.forcing_variables}
        for name in self.allow_missing:
            if name in self.static_variables:
                raise ValueError(
                    f"allow_missing names {name}, a static variable, which must be whole; fill fills its gaps"
                )
            if name not in dynamic:
                raise ValueError(f"allow_missing names {name}, which is not among the variables")
        for name, (low, high) in self.limits.items():
            if not low < high:
                raise ValueError(f"limits of {name}: {low:g} is not below {high:g}")
            if name not in {*dynamic, *self.static_variables}:
                raise ValueError(f"limits names {name}, which is not among the variables")
        return self


class RegridParameters(_Parameters):
    """The target grid (a name of ``weathermill.fields.grids``, or a mapping; null keeps the grid) and the method.

    ``vectors`` regrids wind components through three-dimensional tangent vectors. ``thresholds`` gives the largest
    value allowed of measures of the regrid report (``area_integral_error``, ``overshoot``, ...); beyond it the run stops.
    """

    target: str | dict[str, Any] | None = None
    method: Literal[
        "bilinear", "conservative", "conservative_normed", "nearest_s2d", "nearest_d2s", "patch"
    ] = "conservative"
    vectors: bool = False
    thresholds: dict[str, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _finite(self) -> RegridParameters:
        # A mapping of any values, which pydantic does not look into.
        for name, value in self.target.items() if isinstance(self.target, dict) else ():
            if any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(value)):
                raise ValueError(f"target.{name} must be finite; it is {value}")
        return self

    @model_validator(mode="after")
    def _rectangular(self) -> RegridParameters:
        name = self.target.get("name") if isinstance(self.target, dict) else self.target
        if name is not None and (reduced := re.fullmatch(r"\s*[Oo](\d+)\s*", str(name))):
            raise ValueError(
                f"the target {name} is a reduced grid, and the network needs a latitude-longitude grid;"
                f" N{reduced[1]} has the same rows"
            )
        return self


class PeriodParameters(_Parameters):
    """A period [start, stop), half open, in ISO 8601; an open end is null."""

    start: IsoTime | None = None
    stop: IsoTime | None = None


class SplitParameters(_Parameters):
    """Train, validation and test periods: dates, or fractions of the time steps in time order."""

    train: PeriodParameters | Annotated[float, Field(gt=0, lt=1)] = 0.7
    validation: PeriodParameters | Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: PeriodParameters | Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _one_kind(self) -> SplitParameters:
        values = [self.train, self.validation, self.test]
        fractions = [value for value in values if isinstance(value, float)]
        if fractions and len(fractions) != 3:
            raise ValueError("give all three periods as dates, or all three as fractions")
        if fractions and sum(fractions) > 1 + 1e-9:
            raise ValueError(f"the fractions add up to {sum(fractions):g}, more than 1")
        return self


class TensorsParameters(_Parameters):
    """How the training store is written."""

    dtype: Literal["float16", "float32", "bfloat16"] = "float16"
    steps_per_shard: int | None = Field(None, ge=1)


class ModelParameters(_Parameters):
    """The network: see ``weathermill.models``."""

    name: str = "unet"
    module: str | None = None
    base_channels: int = Field(64, ge=1)
    depth: int = Field(3, ge=1, le=6)
    boundary: Literal["auto", "sphere", "replicate", "reflect", "zeros"] = "auto"
    open_edges: Literal["replicate", "reflect", "zeros"] = "replicate"
    norm: Literal["batch", "group", "none"] = "batch"
    target: Literal["tendency", "state"] = "tendency"
    residual: Literal["persistence", "damped_persistence"] = "persistence"
    damping: float = Field(1.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    zero_head: bool = False
    modes: int | None = Field(None, ge=1)
    non_negative: list[str] = []
    conserve_mean: list[str] = []
    pin_mean: list[str] = []
    budget_mean: dict[str, float] = {}
    conserve_dry_mass: bool = False
    zonal_filter: int | None = Field(None, ge=2)


class StepParameters(_Parameters):
    """How one optimiser step is computed; null leaves the choice to the device."""

    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = None
    compile: bool | None = None
    cuda_graph: bool | None = None
    channels_last: bool | None = None
    clip_norm: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    checkpointing: bool | Literal["auto"] = "auto"


class RolloutParameters(_Parameters):
    """How the steps of a window make one loss: see ``weathermill.training.rollout``."""

    step_weights: list[float] | None = None
    push_forward: bool = False
    checkpoint_steps: bool = False
    noise_std: float = Field(0.0, ge=0)


class LossWeightsParameters(_Parameters):
    """What each channel's error weighs: see ``weathermill.training.weighting``."""

    variables: dict[str, Annotated[float, Field(ge=0)]] = {}
    levels: Literal["pressure"] | dict[float, Annotated[float, Field(ge=0)]] | None = None
    surface: float = Field(1.0, ge=0)


class TrainParameters(_Parameters):
    """How the network is trained: see ``weathermill.training.engine``."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(4, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    loss: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: float = Field(1.0, gt=0)
    error_unit: Literal["tendency", "state"] | None = None
    loss_weights: LossWeightsParameters = LossWeightsParameters()
    spectral_weight: float = Field(0.0, ge=0)
    spectral_variables: list[str] = []
    rollout: list[Annotated[int, Field(ge=1)]] = Field(default=[1], min_length=1)
    rollout_loss: RolloutParameters = RolloutParameters()
    validation_rollout: int | None = Field(None, ge=1)
    step: StepParameters = StepParameters()
    feed: Literal["auto", "device", "pinned", "mapped"] = "auto"
    consecutive: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    checkpoint_every_steps: int | None = Field(None, ge=1)
    checkpoint_every_minutes: float | None = Field(10.0, gt=0)
    keep_checkpoints: int = Field(3, ge=1)
    log_every_steps: int | None = Field(None, ge=1)
    patience: int | None = Field(None, ge=1)
    skip_spikes: float | None = Field(None, gt=1)
    deterministic: bool = False
    dry_step: bool = False
    resume: bool = False


class RegionParameters(_Parameters):
    """A box to verify in besides the standard regions, in degrees; eastwards from ``west`` to ``east``, any wrap."""

    name: str = Field(min_length=1)
    south: float = Field(-90.0, ge=-90, le=90)
    north: float = Field(90.0, ge=-90, le=90)
    west: float = Field(0.0, ge=-360, le=360)
    east: float = Field(360.0, ge=-360, le=720)

    @model_validator(mode="after")
    def _upright(self) -> RegionParameters:
        if self.south > self.north:
            raise ValueError(
                f"region {self.name!r}: south ({self.south:g}) lies north of north ({self.north:g})"
            )
        return self


class EvaluateParameters(_Parameters):
    """What is verified: lead times up to ``lead_time_hours`` from every ``initial_step``-th state of the test period.

    ``regions`` are boxes besides the standard regions. ``climatology`` is a kind of
    ``weathermill.verification.baselines``; ``regression`` is a further baseline, which "auto" fits (damped
    persistence) where that reads little. ``stability_days`` is the length of free rollouts, of which there are
    ``stability_rollouts`` (at most ``batch_size``, as they run at once); null leaves them out. ``block_days`` is the
    decorrelation time of weather, which is added to the lead time for the length of bootstrap blocks.
    """

    lead_time_hours: float = Field(120.0, gt=0)
    initial_step: int = Field(1, ge=1)
    batch_size: int = Field(16, ge=1)
    regions: list[RegionParameters] = []
    climatology: Literal["auto", "harmonic", "hourly", "mean", "weekly"] = "auto"
    regression: Literal["auto", "none", "damped", "multivariate"] = "auto"
    stability_days: float | None = Field(30.0, gt=0)
    stability_rollouts: int = Field(4, ge=1)
    headline_channels: list[str] = []
    map_channels: list[str] = []
    map_lead_times_hours: list[float] = [24.0, 72.0, 120.0]
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(500, ge=10)
    block_days: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _distinct(self) -> EvaluateParameters:
        names = [*STANDARD_REGIONS, *(region.name for region in self.regions)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"regions must have names of their own; used twice: {', '.join(repeated)}")
        return self


class InitialTimes(_Parameters):
    """Initial times from ``start`` to ``stop`` (half open; null: as far as the source goes), ``every_hours``."""

    start: IsoTime | None = None
    stop: IsoTime | None = None
    every_hours: float | None = Field(None, gt=0)


class ForecastParameters(_Parameters):
    """A forecast: from ``initial_time`` (null: the last state of the source) to ``lead_time_hours``.

    ``initial_times`` are those of the pipeline ``forecast_batch``: a list of times (or a text with blanks between), or
    a range; ``batch_size`` of them are forecast at once.
    """

    initial_time: IsoTime | None = None
    lead_time_hours: float = Field(240.0, gt=0)
    initial_times: Annotated[list[IsoTime] | InitialTimes | None, BeforeValidator(_words)] = None
    batch_size: int = Field(8, ge=1)


class CompareParameters(_Parameters):
    """Two runs to compare: the change from the first to the second.

    ``runs`` are ids (or unambiguous beginnings of ids) or names of MLflow runs, as a list or as one text with ".."
    between them. ``log`` adds the result to the artefacts of the second run.
    """

    runs: list[str] | str | None = None
    source: str = "forecast"
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(2000, ge=100)
    log: bool = False


class LockingParameters(_Parameters):
    """What a run does when another one uses a store that it needs: ``wait`` (at most so long), or ``refuse``."""

    busy: Literal["wait", "refuse"] = "wait"
    timeout_minutes: float | None = Field(None, gt=0)


class ResourceParameters(_Parameters):
    """What a run may use.

    ``memory_gib`` is host memory for one stage (null: no bound): blocks of fields are made small enough, and a stage
    that took more when it was last run, or one time step of which would, is refused before it begins. ``disk_check`` has the disk space that the run will need estimated and compared with what is
    free. ``temporary_folder`` is where temporary data go (null: the system's place for them).
    """

    memory_gib: float | None = Field(None, gt=0)
    disk_check: bool = True
    temporary_folder: str | None = Field(None, min_length=1)


class Parameters(_Parameters):
    """All parameters of the project.

    ``seed`` is what every random stream is derived from. ``force`` runs stages although their outputs stand: true for
    all, or the names of pipelines or nodes.
    """

    seed: int = Field(0, ge=0, lt=2**64)
    force: bool | str | list[str] = False
    locking: LockingParameters = LockingParameters()
    resources: ResourceParameters = ResourceParameters()
    ingest: IngestParameters
    regrid: RegridParameters = RegridParameters()
    splits: SplitParameters = SplitParameters()
    tensors: TensorsParameters = TensorsParameters()
    model: ModelParameters = ModelParameters()
    train: TrainParameters = TrainParameters()
    evaluate: EvaluateParameters = EvaluateParameters()
    forecast: ForecastParameters = ForecastParameters()
    compare: CompareParameters = CompareParameters()

    @model_validator(mode="after")
    def _predicted(self) -> Parameters:
        predicted = [*self.ingest.variables, *self.ingest.surface_variables]
        for name in (*self.train.loss_weights.variables, *self.train.spectral_variables):
            if name not in predicted and re.sub(r"_[\d.]+$", "", name) not in predicted:
                raise ValueError(
                    f"train.loss_weights or train.spectral_variables names {name}, which is not among the predicted"
                    f" variables {', '.join(predicted)}"
                )
        return self


def _known_names(location: tuple[Any, ...]) -> list[str]:
    model: Any = Parameters
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(getattr(model, "model_fields", {}))


#: Branches of unions that are models: pydantic tries them on values that are plainly no mapping.
_MODEL_BRANCHES = {"PeriodParameters", "InitialTimes"}


def _of_other_branch(error: Mapping[str, Any]) -> bool:
    """Whether pydantic tried this branch of a union in vain only because the value is plainly of the other kind."""
    branches = [part for part in error["loc"] if isinstance(part, str)]
    as_number = any(part.startswith("constrained-") for part in branches)
    as_model = bool(_MODEL_BRANCHES & set(branches))
    return (
        (as_number and isinstance(error["input"], dict))
        or (as_model and not isinstance(error["input"], dict) and error["type"] == "model_type")
        or (error["type"] == "list_type" and isinstance(error["input"], dict | str))
        or (branches[-1:] == ["str"] and isinstance(error["input"], list))
        or (error["type"] == "literal_error" and isinstance(error["input"], dict))
        or (error["type"] == "dict_type" and isinstance(error["input"], str))
    )


def _names_branch(part: Any) -> bool:
    """Whether a part of an error's location names a branch of a union, and no parameter."""
    return isinstance(part, str) and (
        part[:1].isupper()
        or part.startswith(("constrained-", "dict[", "function-", "list[", "literal["))
        or part == "str"
    )


def _fault(error: Mapping[str, Any]) -> str:
    location = tuple(part for part in error["loc"] if isinstance(part, str) and not _names_branch(part))
    name = ".".join(str(part) for part in error["loc"] if not _names_branch(part))
    if error["type"] == "extra_forbidden":
        known = _known_names(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{name}: unknown parameter; {hint}"
    if error["type"] == "missing":
        return f"{name}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "list_type" and isinstance(error["input"], str | int | float):
        message += f", such as [{error['input']}]"
    if not name:
        return message
    return f"{name}: {message} (given: {error['input']!r})"


def validate_parameters(parameters: Mapping[str, Any]) -> Parameters:
    """Check all parameters of a run.

    Parameters
    ----------
    parameters
        The merged contents of ``conf/<env>/parameters*.yml`` and ``--params``.

    Returns
    -------
    weathermill.parameters.Parameters
        The typed parameters.

    Raises
    ------
    ParameterError
        With one line for each fault: its dotted name, what is wrong and what was given.
    """
    validated, faults = check_parameters(parameters)
    if validated is None:
        raise ParameterError(
            f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the parameters:\n  "
            + "\n  ".join(faults)
        )
    return validated


def check_parameters(parameters: Mapping[str, Any]) -> tuple[Parameters | None, list[str]]:
    """Check all parameters, and give them typed, or None with a line for each fault."""
    try:
        return Parameters.model_validate(parameters), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
        faults = [_fault(item) for item in [e for e in errors if not _of_other_branch(e)] or errors]
        return None, list(dict.fromkeys(faults))
