"""AdamW whose state and learning rate live in device memory, so that a CUDA graph can hold the whole step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weathermill.errors import ParameterError


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101).

    Parameters
    ----------
    learning_rate
        The first; `TrainingStep.set_learning_rate` changes it.
    weight_decay
        Decoupled.
    betas
        Decay rates of the first and second moment.
    eps
        Added to the root of the second moment.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.eps <= 0:
            raise ParameterError(
                f"The optimiser has learning_rate={self.learning_rate}, weight_decay={self.weight_decay}, "
                f"eps={self.eps}: the first and last are positive, weight decay is not negative."
            )


MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimiser(parameters: list[nn.Parameter], config: OptimiserConfig) -> torch.optim.AdamW:
    """Fused AdamW with all of its state made at once, on the parameters' device.

    Parameters
    ----------
    parameters
        Trainable, all on one device.
    config
        Rates.
    """
    device = parameters[0].device
    # On meta tensors only memory is counted: they have no values to check, and the fused kernels know them not.
    counting = device.type == "meta"
    rate = config.learning_rate
    optimiser = torch.optim.AdamW(
        parameters,
        lr=rate if counting else torch.tensor(rate, device=device, dtype=torch.float32),
        betas=tuple(config.betas),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=not counting,
        capturable=device.type == "cuda",
    )
    for parameter in parameters:
        optimiser.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=device),
            **{
                moment: torch.zeros_like(parameter, memory_format=torch.preserve_format) for moment in MOMENTS
            },
        }
    return optimiser


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, 0-d, in float32 at least."""
    norms = torch._foreach_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(norms))


def clip_gradients(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale gradients, whose norm is given, in place so that it does not exceed `limit`."""
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
