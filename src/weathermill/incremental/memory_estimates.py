"""How much host memory each stage will take, before it begins.

Every figure is what the process holds already, plus what libraries add when a stage first needs them, plus what the
stage works with: blocks of fields, resident states, activations. The factors are measured (docs/runs.md says how
well they hold); pages of stores that are mapped into memory count, as they do where peaks are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import dask
import psutil
from dask.system import CPU_COUNT

from weathermill.datasets.tensor_store import SHARD_COPIES, TARGET_SHARD_BYTES
from weathermill.datasets.zarr_fields import BLOCK_COPIES, SHARD_BYTES
from weathermill.errors import ResourceError
from weathermill.fields.conventions import BLOCK_BYTES
from weathermill.incremental.estimates import DTYPE_BYTES
from weathermill.incremental.plan import NodePlan
from weathermill.incremental.shapes import FLOAT, Shapes
from weathermill.parameters import Parameters
from weathermill.pipelines.train.configuration import model_config, train_config
from weathermill.training.ledger import blank_forecaster, predict_for
from weathermill.training.memory import available_host_memory

MIB = 2**20
#: What MLflow and Dask take once a run has begun.
_FIRST = 140
#: What libraries take once a stage first needs them.
_LIBRARIES = {"make_regrid_weights": 150, "train": 50, "draw_figures": 40, "write_model_card": 40}
#: A prediction is refused only where it is beyond its error of what there is.
SAFE = 1.5
_CLIMATOLOGY_CACHE = 256 * MIB


def predict_memory(
    plan: Sequence[NodePlan], shapes: Shapes | None, parameters: Parameters, lazy: Collection[str] = ()
) -> dict[str, int]:
    """Predict the peak of host memory of every stage that will run, in bytes, by the name of its node.

    Parameters
    ----------
    plan
        What will run.
    shapes
        How large the data are, if that is known.
    parameters
        All parameters.
    lazy
        Outputs that are passed on lazily instead of being stored: their stages read nothing.

    Returns
    -------
    dict
        Empty where nothing says how large the data are. What processes of a Dask cluster take does not count.
    """
    if shapes is None:
        return {}
    held = psutil.Process().memory_info().rss + _FIRST * MIB
    predicted, mapped = {}, 0
    for node in (entry.node for entry in plan if entry.runs):
        held += _LIBRARIES.get(node.name, 0) * MIB
        if node.name in ("train", "evaluate") and not mapped:
            mapped = min(_stored(shapes, parameters), available_host_memory())
            held += mapped
        work = None if set(node.outputs) & set(lazy) else _WORK.get(node.name)
        predicted[node.name] = held + (work(shapes, parameters) if work is not None else 0)
    return predicted


def require_memory(predicted: Mapping[str, int], parameters: Parameters) -> None:
    """Refuse a run of which a stage surely takes more memory than it may, or than there is.

    Raises
    ------
    ResourceError
        Naming the stage.
    """
    allowed = parameters.resources.memory_gib
    free = available_host_memory() + psutil.Process().memory_info().rss
    limit, what = free, "are free"
    if allowed is not None and allowed * 2**30 < free:
        limit, what = int(allowed * 2**30), "may be used (resources.memory_gib)"
    for name, size in predicted.items():
        if size > SAFE * limit:
            raise ResourceError(
                f"{name} will take about {size / 2**30:.1f} GiB of memory, and {limit / 2**30:.1f} GiB {what}",
                where=name,
                remedy=_REMEDIES.get(
                    name, "Take fewer variables, levels or grid points, or a larger machine."
                ),
            )


def threads(parameters: Parameters) -> int:
    """How many threads Dask may use, so that their blocks stay within the memory that a stage may take."""
    count = int(dask.config.get("num_workers", None) or CPU_COUNT)
    budget = parameters.resources.memory_gib
    if budget is None:
        return count
    return max(1, min(count, int(budget * 2**30 // (4 * block_bytes(parameters)))))


def block_bytes(parameters: Parameters) -> int:
    """Bytes of a block of all variables, in which fields are computed and written."""
    budget = parameters.resources.memory_gib
    return SHARD_BYTES if budget is None else min(SHARD_BYTES, int(budget * 2**30) // BLOCK_COPIES)


def _block(shapes: Shapes, parameters: Parameters, step: int) -> int:
    """Bytes of a block, which holds whole steps and no more than there are."""
    steps = max(1, block_bytes(parameters) // max(1, step))
    return min(steps, shapes.times) * step


def _largest(shapes: Shapes) -> float:
    """The share of the largest variable in a step."""
    return shapes.levels / max(1, shapes.dynamic)


def _inspect(shapes: Shapes, parameters: Parameters) -> int:
    variable = int(shapes.source_step * _largest(shapes))
    return min(2**30, 6 * min(6, shapes.times) * variable)


def _store(shapes: Shapes, parameters: Parameters, step: int) -> int:
    """Each thread makes a shard of one variable, of blocks of the source, and encodes it."""
    shard = int(_block(shapes, parameters, step) * _largest(shapes))
    source = min(
        max(BLOCK_BYTES, int(shapes.source_step * _largest(shapes))),
        int(shapes.times * shapes.source_step * _largest(shapes)),
    )
    return threads(parameters) * (3 * shard + 4 * source)


def _ingest(shapes: Shapes, parameters: Parameters) -> int:
    return _store(shapes, parameters, shapes.source_step)


def _regrid(shapes: Shapes, parameters: Parameters) -> int:
    return _store(shapes, parameters, shapes.target_step)


def _statistics(shapes: Shapes, parameters: Parameters) -> int:
    """Blocks of all channels, and those that they are stacked of."""
    block = _block(shapes, parameters, shapes.target_step)
    at_once = min(threads(parameters), -(-shapes.times * shapes.target_step // max(1, block)))
    return 3 * at_once * block


def _report(shapes: Shapes, parameters: Parameters) -> int:
    pair = int((shapes.source_step + shapes.target_step) * _largest(shapes))
    return threads(parameters) * (
        4 * pair + int(_block(shapes, parameters, shapes.target_step) * _largest(shapes))
    )


def _tensors(shapes: Shapes, parameters: Parameters) -> int:
    """A shard in float32 is put together of normalised blocks, and then encoded."""
    size = DTYPE_BYTES[parameters.tensors.dtype]
    state = shapes.target_step // FLOAT * size
    steps = parameters.tensors.steps_per_shard or max(1, TARGET_SHARD_BYTES // max(1, state))
    budget = parameters.resources.memory_gib
    if budget is not None and parameters.tensors.steps_per_shard is None:
        steps = min(steps, max(1, int(budget * 2**30) // (SHARD_COPIES * shapes.target_step)))
    steps = min(steps, shapes.times)
    block = _block(shapes, parameters, shapes.target_step)
    return 3 * steps * shapes.target_step + steps * state + threads(parameters) * block


def _stored(shapes: Shapes, parameters: Parameters) -> int:
    return shapes.times * shapes.target_step // FLOAT * DTYPE_BYTES[parameters.tensors.dtype]


def _train(shapes: Shapes, parameters: Parameters) -> int:
    """States that are resident, windows on their way, and on a CPU the network's own."""
    config = train_config(parameters.train, 0)
    # An epoch has no more windows than there are states.
    batch = min(config.batch_size, shapes.times)
    window = batch * (config.most_steps + 1) * shapes.target_step
    data = min(_stored(shapes, parameters), available_host_memory())
    work = data + 4 * window
    import torch

    if parameters.train.device == "cpu" or not torch.cuda.is_available():
        network = blank_forecaster(
            model_config(parameters.model),
            shapes.prognostic,
            shapes.target,
            n_forcing=shapes.forcing,
            n_static=shapes.static,
        )
        step = predict_for(network, batch, config.step, config.most_steps, config.rollout_loss)
        work += 2 * (step.total - step.parts.get("workspace", 0))
    return work


def _evaluate(shapes: Shapes, parameters: Parameters) -> int:
    """Forecasts, truth and baselines of a batch in double precision, and climatologies that are kept."""
    batch = min(parameters.evaluate.batch_size, shapes.times)
    kept = min(_CLIMATOLOGY_CACHE, shapes.times * shapes.target_step)
    return 20 * batch * shapes.target_step + kept


def _stability(shapes: Shapes, parameters: Parameters) -> int:
    batch = min(parameters.evaluate.batch_size, parameters.evaluate.stability_rollouts)
    return 20 * batch * shapes.target_step


def _forecast(shapes: Shapes, parameters: Parameters) -> int:
    steps = shapes.steps(parameters.forecast.lead_time_hours)
    return 4 * shapes.source_step + (10 + 3 * steps) * shapes.target_step


def _forecasts(shapes: Shapes, parameters: Parameters) -> int:
    return parameters.forecast.batch_size * _forecast(shapes, parameters)


_WORK: dict[str, Callable[[Shapes, Parameters], int]] = {
    "inspect": _inspect,
    "ingest": _ingest,
    "regrid": _regrid,
    "compute_statistics": _statistics,
    "report_regridding": _report,
    "write_tensors": _tensors,
    "train": _train,
    "evaluate": _evaluate,
    "follow_stability": _stability,
    "read_initial_state": _forecast,
    "forecast": _forecast,
    "forecast_batch": _forecasts,
}

_REMEDIES = {
    "train": "Take a smaller train.batch_size or model.base_channels, fewer steps in train.rollout, or "
    "train.feed=mapped.",
    "evaluate": "Take a smaller evaluate.batch_size.",
    "follow_stability": "Take fewer evaluate.stability_rollouts.",
    "forecast_batch": "Take a smaller forecast.batch_size.",
    "write_tensors": "Take fewer tensors.steps_per_shard, or fewer variables or grid points.",
}
