from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from weathermill.errors import ModelError
from weathermill.models.boundary import Edges
from weathermill.models.layers import batch_norm_after_bias
from weathermill.models.registry import ModelConfig, available_networks, build_network, register_network


def unet(shape, *, channels=5, poles=True, **config):
    step = 90.0 if poles else 90.0 - 90.0 / shape[0]
    config = {"base_channels": 4, **config}
    return build_network(
        ModelConfig(**config),
        in_channels=channels,
        out_channels=channels,
        grid_shape=shape,
        latitude=np.linspace(step, -step, shape[0]),
    )


def test_the_reference_network_has_the_published_number_of_parameters():
    network = unet((181, 360), channels=65, base_channels=64)
    assert sum(p.numel() for p in network.parameters()) == 7_742_849
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("shape", [(8, 8), (9, 11), (13, 8), (31, 60), (33, 61), (8, 17)])
@pytest.mark.parametrize("boundary", ["sphere", "zeros", "replicate", "reflect"])
def test_any_grid_from_eight_by_eight_keeps_its_size_and_trains(shape, boundary):
    network = unet(shape, boundary=boundary)
    y = network(torch.randn(2, 5, *shape))
    assert y.shape == (2, 5, *shape) and torch.isfinite(y).all()
    y.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("poles", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_rolling_the_input_by_the_stride_rolls_the_output(poles, training):
    network = unet((19, 32), poles=poles).double().train(training)
    x = torch.randn(2, 5, 19, 32, dtype=torch.float64)
    for cells in (8, 16, 24):
        torch.testing.assert_close(network(x.roll(cells, -1)), network(x).roll(cells, -1), rtol=0, atol=1e-12)
    assert (network(x.roll(3, -1)) - network(x).roll(3, -1)).abs().max() > 1e-3


def test_zero_padding_does_not_commute_with_rolling():
    network = unet((16, 32), boundary="zeros").double().eval()
    x = torch.randn(1, 5, 16, 32, dtype=torch.float64)
    assert (network(x.roll(8, -1)) - network(x).roll(8, -1)).abs().max() > 1e-3


def test_the_bias_before_a_batch_normalisation_changes_nothing_but_the_running_mean():
    torch.manual_seed(3)
    plain, ours = nn.BatchNorm2d(6).double(), nn.BatchNorm2d(6).double()
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    expected = plain(x + bias.detach()[:, None, None])
    got = batch_norm_after_bias(x, bias, ours)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.running_var, plain.running_var)
    assert ours.num_batches_tracked == 1
    got.square().sum().backward()
    assert torch.equal(bias.grad, torch.zeros_like(bias))


def test_recomputing_blocks_gives_the_same_gradients_and_running_statistics():
    networks = [unet((17, 24)).double() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    networks[1].checkpoint_blocks = True
    with torch.no_grad():
        for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            a.add_(torch.rand_like(a))
            b.copy_(a)
    x = torch.randn(2, 5, 17, 24, dtype=torch.float64)
    for network in networks:
        network(x).square().mean().backward()
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for (name, a), b in zip(networks[0].named_buffers(), networks[1].buffers(), strict=True):
        assert torch.equal(a, b), name


def test_recomputing_blocks_keeps_fewer_activations():
    def kept(checkpoint_blocks: bool) -> int:
        network = unet((32, 64), base_channels=8)
        network.checkpoint_blocks = checkpoint_blocks
        sizes: dict[int, int] = {}

        def pack(t):
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            network(torch.randn(2, 5, 32, 64))
        return sum(sizes.values())

    assert kept(True) < 0.5 * kept(False)


@pytest.mark.parametrize("norm", ["group", "none"])
def test_other_normalisations_train(norm):
    network = unet((16, 16), norm=norm, base_channels=16)
    network(torch.randn(1, 5, 16, 16)).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_one_value_per_channel_cannot_be_batch_normalised():
    with pytest.raises(ModelError, match="single value"):
        unet((8, 8))(torch.randn(1, 5, 8, 8))


def test_the_registry_names_what_there_is():
    assert "unet" in available_networks()
    with pytest.raises(ModelError, match=r"no architecture 'transformer'.*unet"):
        unet((8, 8), name="transformer")
    with pytest.raises(ModelError, match="Unknown model parameters widht"):
        ModelConfig.from_dict({"widht": 3})
    for wrong in (
        {"boundary": "torus"},
        {"open_edges": "periodic"},
        {"norm": "layer"},
        {"target": "flux"},
        {"depth": 0},
        {"dropout": 1.0},
    ):
        with pytest.raises(ModelError, match=next(iter(wrong))):
            ModelConfig(**wrong)


def test_a_registered_network_is_built_with_the_sizes():
    @register_network("test-pointwise")
    def build(config, *, in_channels, out_channels, grid_shape, latitude):
        assert grid_shape == (8, 8) and latitude is not None
        return nn.Conv2d(in_channels, out_channels, 1)

    assert unet((8, 8), name="test-pointwise")(torch.zeros(1, 5, 8, 8)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(
    ("shape", "depth", "boundary", "poles"),
    [
        ((19, 32), 3, "sphere", True),
        ((16, 24), 2, "sphere", False),
        ((8, 8), 3, "sphere", True),
        ((17, 18), 2, "zeros", True),
        ((17, 18), 2, "replicate", False),
        ((19, 21), 3, "reflect", False),
        ((13, 16), 2, Edges("pole", "replicate", "periodic"), True),
        ((13, 16), 2, Edges("reflect", "pole", "periodic"), False),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_fast_pass_is_the_network_that_autograd_differentiates(shape, depth, boundary, poles, recompute):
    edges = {"edges": boundary} if isinstance(boundary, Edges) else {"boundary": boundary}
    networks = [
        unet(shape, channels=6, base_channels=8, depth=depth, poles=poles, **edges).double() for _ in range(2)
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    networks[1].checkpoint_blocks = recompute
    state = torch.randn(2, 4, *shape, dtype=torch.float64)
    static = torch.randn(2, *shape, dtype=torch.float64)
    weights = torch.randn(2, 6, *shape, dtype=torch.float64)
    results = []
    for network, fast in zip(networks, (False, True), strict=True):
        network.fused = fast
        assert network.takes_fast_pass(state.device) == fast
        x = state.clone().requires_grad_()
        output = network(x, static)
        (output * weights).sum().backward()
        named = {"output": output.detach(), "state": x.grad}
        named |= {name: p.grad for name, p in network.named_parameters()}
        named |= dict(network.named_buffers())
        named["evaluation"] = network.eval()(state, static).detach()
        results.append(named)
    for name, value in results[0].items():
        torch.testing.assert_close(
            results[1][name], value, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_fast_pass_is_for_rings_of_longitudes_and_batch_normalisation():
    for shape, config in [((16, 18), {}), ((16, 16), {"norm": "group"}), ((16, 16), {"dropout": 0.1})]:
        network = unet(shape, base_channels=16, **config)
        network.fused = True
        assert not network.takes_fast_pass(torch.device("cpu"))
        assert network(torch.randn(2, 5, *shape)).shape == (2, 5, *shape)
