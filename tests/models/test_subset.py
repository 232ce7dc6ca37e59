"""Changes of some channels against autograd over the whole state."""

from __future__ import annotations

import torch

from weathermill.models.subset import on_channels, take_channels

INDEX = torch.tensor([3, 0])


def fields(seed: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)


def change(mine: torch.Tensor, other: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    return torch.where(gone, torch.zeros_like(mine), mine * other + mine.mean(dim=(2, 3), keepdim=True) ** 2)


def test_other_channels_stay_and_gradients_are_those_of_the_whole_state():
    x, other, gone = fields(0, 5), fields(1, 2), fields(2, 2) > 0
    kept = x.detach().clone()
    changed = on_channels(change, x, INDEX, other, gone)
    expected = x.index_copy(1, INDEX, change(x[:, INDEX], other, gone))
    assert torch.equal(changed, expected) and torch.equal(x, kept)
    assert torch.equal(changed[:, [1, 2, 4]], x[:, [1, 2, 4]])
    weights = fields(3, 5).detach()
    got, whole = (torch.autograd.grad((y * weights).sum(), (x, other)) for y in (changed, expected))
    for a, b in zip(got, whole, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda x, other: on_channels(change, x, INDEX, other, gone), (x, other))


def test_what_the_change_does_not_depend_on_has_no_gradient():
    x, other = fields(0, 5), fields(1, 2)
    changed = on_channels(lambda mine, other: torch.ones_like(mine), x, INDEX, other)
    dx, dother = torch.autograd.grad(changed.sum(), (x, other), allow_unused=True)
    assert not dx[:, INDEX].any() and (dx[:, [1, 2, 4]] == 1).all() and not dother.any()


def test_taken_channels_send_their_gradient_back_to_their_places():
    x = fields(0, 5)
    assert torch.equal(take_channels(x, INDEX), x[:, INDEX])
    assert torch.autograd.gradcheck(lambda x: take_channels(x, INDEX), (x,))


def test_changes_without_gradients_are_made_once():
    calls = []

    def count(mine: torch.Tensor) -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return 2 * mine

    x = fields(0, 5)
    on_channels(count, x.detach(), INDEX)
    assert calls == [False]
    on_channels(count, x, INDEX).sum().backward()
    assert calls == [False, False, True]
