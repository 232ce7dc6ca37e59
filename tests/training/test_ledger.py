from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from weathermill.errors import ResourceError
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.ledger import advise, largest_batch, measure, predict, predict_for
from weathermill.training.losses import AreaWeightedLoss
from weathermill.training.rollout import RolloutConfig
from weathermill.training.spectral import SpectralTerm
from weathermill.training.step import StepConfig, TrainingStep

REFERENCE = ModelConfig()
MIB = 2**20


def forecaster(grid=(181, 360), channels=65, **config) -> Forecaster:
    ones = np.ones(channels)
    return Forecaster(
        ModelConfig(**config),
        ChannelTable([Channel(f"c{i}", "c") for i in range(channels)]),
        np.linspace(90, -90, grid[0]),
        np.arange(grid[1]) * (360.0 / grid[1]),
        mean=ones,
        std=ones,
        tendency_std=ones,
    )


def kept_images(batch: int, rows: int = 184, columns: int = 360, inputs: int = 96) -> int:
    """Bytes that the fast pass keeps for one step, counted from its description, in bf16."""
    cells = [(rows >> k) * (columns >> k) for k in range(4)]
    haloed = [((rows >> k) + 2) * ((columns >> k) + 2) for k in range(4)]
    widths = [64, 128, 256, 512]
    total = haloed[0] * inputs
    for k in range(4):
        # Two outputs of convolutions and a haloed image between them.
        total += (2 * cells[k] + haloed[k]) * widths[k]
        if k:
            total += haloed[k] * widths[k - 1]
    total += cells[3] * widths[3]
    for k in range(3):
        total += haloed[k] * 2 * widths[k] + (2 * cells[k] + haloed[k]) * widths[k] + cells[k] * widths[k]
    return 2 * batch * (total + cells[0] * 72)


def activations(ledger) -> int:
    return sum(size for name, size in ledger.parts.items() if name.startswith("activations"))


def test_fixed_parts_are_what_adamw_keeps():
    ledger = predict(REFERENCE, 65, (181, 360), 4, StepConfig(ema_decay=0.99))
    n = 7_742_849
    assert ledger.parts["parameters"] == ledger.parts["average"] == 4 * n
    assert ledger.parts["optimiser"] == 8 * n
    assert ledger.parts["window"] == 2 * 4 * 2 * 65 * 181 * 360 * 2
    assert ledger.total == sum(ledger.parts.values())


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_activations_are_the_images_that_the_pass_keeps(batch):
    ledger = predict(REFERENCE, 65, (181, 360), batch)
    # At the peak there is the gradient of the head's output too.
    expected = kept_images(batch) + 2 * batch * 184 * 360 * 72
    assert abs(activations(ledger) / expected - 1) < 0.01


def test_rollout_steps_add_up_and_recomputation_takes_them_away():
    totals = [activations(predict(REFERENCE, 65, (181, 360), 2, rollout=r)) for r in (1, 2, 4)]
    assert abs((totals[2] - totals[1]) / (2 * (totals[1] - totals[0])) - 1) < 0.1
    plain = predict(REFERENCE, 65, (181, 360), 2, rollout=4).total
    blocks = predict(REFERENCE, 65, (181, 360), 2, StepConfig(checkpointing=True), rollout=4).total
    steps = predict(
        REFERENCE, 65, (181, 360), 2, rollout=4, rollout_config=RolloutConfig(checkpoint_steps=True)
    ).total
    assert steps < blocks < 0.75 * plain


def test_precision_halves_images_and_other_networks_are_counted_too():
    half, single = (
        activations(predict(REFERENCE, 65, (33, 64), 2, StepConfig(precision=p))) for p in ("bf16", "fp32")
    )
    assert 1.8 < single / half < 2.0
    group = predict(ModelConfig(norm="group", base_channels=16), 65, (33, 64), 2)
    assert activations(group) > 0 and any("down" in name for name in group.parts)


def test_a_prediction_leaves_the_forecaster_alone():
    model = forecaster((17, 32), 5, base_channels=8, depth=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.random.get_rng_state()
    predict_for(model, 2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_the_largest_batch_is_the_last_that_fits():
    model = forecaster((33, 64), 9, base_channels=16)
    budget = 2**30
    most = largest_batch(model, budget)
    assert predict_for(model, most).reserved <= budget < predict_for(model, most + 1).reserved
    assert largest_batch(model, 2**20) == 0


def test_advice_names_what_would_fit():
    model = forecaster()
    fits = advise(model, 16, 80 * 2**30)
    assert fits.fits and not fits.checkpointing and "16" in fits.text and str(fits.largest_batch) in fits.text
    tight = advise(model, 32, 7 * 2**30)
    assert not tight.fits and tight.checkpointing
    for option in ("checkpointing: true", "accumulate: 2", f"batch_size: {tight.largest_batch}"):
        assert option in tight.text
    assert "checkpoint_steps: true" in advise(model, 4, 4 * 2**30, rollout=4).text
    assert "precision: bf16" in advise(model, 16, 6 * 2**30, StepConfig(precision="tf32")).text
    assert "smaller grid" in advise(model, 1, 2**20).text


def test_table_and_dictionary_hold_every_part():
    ledger = predict(REFERENCE, 65, (181, 360), 4, rollout=2)
    text = ledger.table()
    for name, size in ledger.parts.items():
        assert size < 2**10 or name in text
    assert "activations" in ledger.table(detail=False) and "step 2" not in ledger.table(detail=False)
    assert ledger.to_dict()["total"] == ledger.total == sum(ledger.summary().values())


@pytest.mark.gpu
@pytest.mark.parametrize("rollout", [1, 2])
@pytest.mark.parametrize("recompute", [False, True])
def test_prediction_is_within_five_percent_of_a_dry_step(rollout, recompute):
    model = forecaster()
    before = copy.deepcopy(model.state_dict())
    ledger = measure(model, 8, StepConfig(checkpointing=recompute), rollout)
    assert abs(ledger.parts["unexplained"]) < 0.05 * ledger.total
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("rollout", [1, 2])
@pytest.mark.parametrize("spectral", [False, True])
def test_prediction_holds_for_constraints_and_the_spectral_term(rollout, spectral):
    areas, longitude = np.ones(181), np.arange(360.0)
    term = SpectralTerm(0.5, areas, longitude) if spectral else None
    loss = AreaWeightedLoss("mse", areas, spectral=term)
    config = {} if spectral else {"zonal_filter": 8, "conserve_mean": ("c0",), "non_negative": ("c1",)}
    ledger = measure(forecaster(**config), 8, StepConfig(), rollout, loss=loss)
    assert abs(ledger.parts["unexplained"]) < 0.05 * ledger.total


def test_the_spectral_term_counts():
    model, areas = forecaster(), np.ones(181)
    loss = AreaWeightedLoss("mse", areas, spectral=SpectralTerm(0.5, areas, np.arange(360.0)))
    plain, spectral = (predict_for(model, 4, loss=each).total for each in (None, loss))
    # Waves of the difference and of the truth are kept for the gradient: complex64, 181 of each circle.
    assert spectral - plain > 2 * 4 * 65 * 181 * 181 * 8
    assert largest_batch(model, 8 * 2**30, loss=loss) < largest_batch(model, 8 * 2**30)
    assert not advise(model, 16, plain * 2, loss=loss).fits


@pytest.mark.gpu
def test_a_step_that_does_not_fit_says_so():
    with pytest.raises(ResourceError, match="does not fit"):
        measure(forecaster(), 4096)


def test_training_on_meta_tensors_takes_no_optimiser_step():
    model = forecaster((17, 32), 5, base_channels=8, depth=2).to("meta")
    step = TrainingStep(
        model, AreaWeightedLoss("mse", np.ones(17)), config=StepConfig(cuda_graph=False), device="meta"
    )
    loss, per_channel = step.accumulate_gradients(torch.empty(2, 2, 5, 17, 32, device="meta"))
    assert loss.is_meta and per_channel.shape == (1, 5)


def test_sizes_are_known_for_networks_whose_constraints_name_channels():
    named = ModelConfig(
        base_channels=4, depth=1, non_negative=["specific_humidity"], conserve_mean=["surface_pressure"]
    )
    plain = ModelConfig(base_channels=4, depth=1)
    assert predict(named, 3, (16, 32), 2).total == predict(plain, 3, (16, 32), 2).total


def test_a_forecaster_that_is_ready_to_forecast_is_predicted_as_one_that_trains():
    model = forecaster((16, 32), 4, base_channels=8, depth=1)
    expected = predict_for(model.train(), 2, rollout=2).parts
    assert predict_for(model.eval(), 2, rollout=2).parts == expected and not model.training
