"""Which edges of a grid close, and that nothing is joined which does not."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from weathermill.errors import ModelError
from weathermill.extent import is_globe, reaches_poles
from weathermill.models.boundary import PADDINGS, SPHERE, Edges, boundary_text, choose_edges
from weathermill.models.forecaster import Forecaster
from weathermill.models.registry import ModelConfig, build_network
from weathermill.models.sphere import SphereGrid
from weathermill.tensors.channels import Channel, ChannelTable
from weathermill.training.config import TrainConfig
from weathermill.training.resuming import check_identity, identity

AROUND = np.arange(0.0, 360.0, 10.0)
GAUSSIAN = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))[::-1]
OPEN = "replicate"


def make_forecaster(latitude, longitude, **config) -> Forecaster:
    one = np.ones(1)
    table = ChannelTable([Channel("t", "t")])
    return Forecaster(
        ModelConfig(base_channels=8, depth=1, **config), table, latitude, longitude, 0 * one, one, one
    )


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        (np.linspace(90, -90, 19), AROUND, SPHERE),
        (np.linspace(85, -85, 18), AROUND, SPHERE),
        (np.linspace(-85, 85, 18), AROUND - 180.0, SPHERE),
        (GAUSSIAN, AROUND, SPHERE),
        (np.round(GAUSSIAN, 2).astype(np.float32), AROUND.astype(np.float32), SPHERE),
        # 720 x 1440: the row of the south pole is left out.
        (90.0 - 0.25 * np.arange(720), 0.25 * np.arange(1440), SPHERE),
        (np.linspace(90, 0, 10), AROUND, Edges("pole", OPEN, "periodic")),
        (GAUSSIAN[:16], AROUND, Edges("pole", OPEN, "periodic")),
        (np.linspace(0, -85, 18), AROUND, Edges(OPEN, "pole", "periodic")),
        (np.linspace(-85, 0, 18), AROUND, Edges("pole", OPEN, "periodic")),
        (np.linspace(30, -30, 13), AROUND, Edges(OPEN, OPEN, "periodic")),
        (np.linspace(80, -80, 33), AROUND, Edges(OPEN, OPEN, "periodic")),
        (np.linspace(60, 30, 16), np.linspace(160, 202, 22), Edges.uniform(OPEN)),
        # Up to the pole, but not round it; round it but for a quarter.
        (np.linspace(90, 50, 21), np.linspace(0, 60, 31), Edges.uniform(OPEN)),
        (np.linspace(90, -90, 19), np.arange(0.0, 270.0, 10.0), Edges.uniform(OPEN)),
    ],
)
def test_each_edge_follows_from_the_coordinates(latitude, longitude, expected):
    assert choose_edges("auto", OPEN, latitude, longitude) == expected
    assert is_globe(latitude, longitude) == expected.is_sphere


def test_one_row_reaches_a_pole_only_where_it_lies_on_it():
    assert reaches_poles(np.array([90.0])) == (True, True)
    assert reaches_poles(np.array([80.0])) == (False, False)


def test_a_sphere_is_refused_on_a_region_with_what_would_do():
    with pytest.raises(
        ModelError, match="16 latitudes from 60 to 30 degrees do not reach both poles"
    ) as refused:
        choose_edges("sphere", OPEN, np.linspace(60, 30, 16), np.linspace(160, 202, 22))
    assert "22 longitudes from 160 to 202 degrees do not go round the circle" in str(refused.value)
    assert "model.boundary to auto" in refused.value.remedy and "by replication" in refused.value.remedy
    with pytest.raises(ModelError, match="latitudes from 90 to 0") as refused:
        choose_edges("sphere", "reflect", np.linspace(90, 0, 10), AROUND)
    assert (
        "north across the pole; south open, padded by reflection; west and east periodic"
        in refused.value.remedy
    )
    assert choose_edges("sphere", OPEN, np.linspace(90, -90, 19), AROUND).is_sphere


def test_a_padding_that_is_asked_for_holds_at_every_edge_of_a_globe():
    for padding in PADDINGS:
        assert choose_edges(padding, OPEN, np.linspace(90, -90, 19), AROUND) == Edges.uniform(padding)


def test_a_pole_without_a_circle_around_it_is_refused():
    with pytest.raises(ModelError, match="only where its longitudes go round"):
        Edges("pole", "replicate", "replicate")
    with pytest.raises(ModelError, match="north edge of the grid is 'periodic'"):
        Edges("periodic", "pole", "periodic")


def test_the_boundary_is_told_in_words():
    globe = np.linspace(90, -90, 10), AROUND
    assert make_forecaster(*globe).boundary == (
        "auto: sphere, periodic in longitude and across both poles in latitude"
    )
    assert make_forecaster(*globe, boundary="zeros").boundary == (
        "zeros: all edges open, padded by zeros, though the grid goes on across the north pole and across the south pole"
        " and round the circle"
    )
    assert make_forecaster(np.linspace(90, 0, 10), AROUND).boundary == (
        "auto: north across the pole; south open, padded by replication; west and east periodic"
    )
    assert make_forecaster(np.linspace(60, 30, 8), np.linspace(0, 30, 8), boundary="reflect").boundary == (
        "reflect: all edges open, padded by reflection"
    )
    assert make_forecaster(*globe, boundary="sphere").boundary == (
        "sphere, periodic in longitude and across both poles in latitude"
    )


def test_north_and_south_are_told_as_on_the_map_where_latitudes_ascend():
    ascending = make_forecaster(np.linspace(0, 90, 10), AROUND)
    assert ascending.config.edges == Edges("replicate", "pole", "periodic")
    assert ascending.boundary == (
        "auto: north across the pole; south open, padded by replication; west and east periodic"
    )
    assert ascending.config.edges.geographic(ascending.latitude).name == (
        "north pole, south replicate, west and east periodic"
    )
    with pytest.raises(ModelError) as caught:
        choose_edges("sphere", "zeros", np.linspace(-90, 0, 10), AROUND)
    assert "north open, padded by zeros; south across the pole" in caught.value.remedy
    cut = boundary_text("zeros", Edges.uniform("zeros"), np.linspace(0, 90, 10), AROUND)
    assert "goes on across the north pole and round the circle" in cut


@pytest.mark.parametrize(("shape", "depth"), [((33, 49), 3), ((9, 13), 2), ((16, 24), 2)])
@pytest.mark.parametrize(
    ("padding", "mode"), [("replicate", "replicate"), ("reflect", "reflect"), ("zeros", "constant")]
)
def test_margins_and_halos_of_open_edges_are_those_of_torch(shape, depth, padding, mode):
    grid = SphereGrid(shape, depth, (True, True), Edges.uniform(padding))
    x = torch.randn(2, 3, *shape)
    north, south, east = grid.margins
    padded = grid.pad(x)
    assert torch.equal(padded, F.pad(x, (0, east, north, south), mode=mode))
    for level in range(depth + 1):
        image = torch.randn(2, 3, *grid.halo(level).shape)
        assert torch.equal(grid.halo(level).pad(image), F.pad(image, (1, 1, 1, 1), mode=mode))


def test_a_level_of_one_row_reflects_that_row():
    grid = SphereGrid((8, 16), 3, edges=Edges.uniform("reflect"))
    image = torch.randn(1, 1, 1, 2)
    haloed = grid.halo(3).pad(image)
    assert torch.equal(haloed[..., 0, 1:-1], image[..., 0, :]) and torch.equal(
        haloed[..., 2, 1:-1], image[..., 0, :]
    )
    assert torch.equal(haloed[..., 1, :], image[..., 0, [1, 0, 1, 0]])


def test_a_hemisphere_goes_on_across_its_pole_and_not_beyond_the_equator():
    grid = SphereGrid((13, 16), 2, (True, False), Edges("pole", "replicate", "periodic"))
    x = torch.arange(13.0 * 16).reshape(1, 1, 13, 16)
    north, south, east = grid.margins
    assert (north, south, east) == (1, 2, 0)
    padded = grid.pad(x)
    assert torch.equal(padded[0, 0, 0], x[0, 0, 1].roll(8))
    assert torch.equal(padded[0, 0, -2:], x[0, 0, -1:].expand(2, -1))
    haloed = grid.halo(0).pad(padded)
    assert torch.equal(haloed[0, 0, 0, 1:-1], x[0, 0, 2].roll(8))
    assert torch.equal(haloed[0, 0, -1, 1:-1], x[0, 0, -1])
    assert torch.equal(haloed[0, 0, :, 0], haloed[0, 0, :, -2]) and torch.equal(
        haloed[0, 0, :, -1], haloed[0, 0, :, 1]
    )


def changed_by(network, row: int, column: int, shape: tuple[int, int], fused: bool) -> torch.Tensor:
    """Cells (rows, columns) of the output that depend on one cell of the input."""
    network = network.double().eval()
    network.fused = fused
    assert network.takes_fast_pass(torch.device("cpu")) == fused
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    other = x.clone()
    other[0, 0, row, column] += 1.0
    return (network(x) != network(other)).any(dim=1)[0]


def network_on(latitude, longitude, **config):
    torch.manual_seed(1)
    return build_network(
        ModelConfig(base_channels=8, depth=1, **config),
        in_channels=2,
        out_channels=2,
        grid_shape=(len(latitude), len(longitude)),
        latitude=latitude,
        longitude=longitude,
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_region_is_not_joined_at_its_edges(fused, padding):
    latitude, longitude = np.linspace(70, 30, 21), np.linspace(0, 80, 41)
    network = network_on(latitude, longitude, open_edges=padding)
    seen = changed_by(network, 10, 40, (21, 41), fused)
    assert seen[10, 40] and not seen[:, :20].any()
    seen = changed_by(network, 0, 5, (21, 41), fused)
    assert seen[0, 5] and not seen[12:].any() and not seen[:, 20:].any()


@pytest.mark.parametrize("fused", [False, True])
def test_a_globe_is_joined_at_the_date_line_and_across_the_poles(fused):
    latitude, longitude = np.linspace(90, -90, 22), np.arange(40) * 9.0
    network = network_on(latitude, longitude)
    seen = changed_by(network, 10, 39, (22, 40), fused)
    assert seen[10, 0] and not seen[10, 15:25].any()
    seen = changed_by(network, 1, 5, (22, 40), fused)
    assert seen[1, 25] and not seen[1, 15].any() and not seen[12:].any()


@pytest.mark.parametrize("fused", [False, True])
def test_a_hemisphere_is_joined_around_and_at_its_pole_alone(fused):
    latitude, longitude = np.linspace(90, 0, 22), np.arange(40) * 9.0
    network = network_on(latitude, longitude)
    assert changed_by(network, 10, 39, (22, 40), fused)[10, 0]
    assert changed_by(network, 1, 5, (22, 40), fused)[1, 25]
    at_equator = changed_by(network, 21, 5, (22, 40), fused)
    assert at_equator[21, 5] and not at_equator[:, 15:30].any() and not at_equator[:10].any()


def test_a_saved_model_says_what_its_edges_are(tmp_path):
    latitude, longitude = np.linspace(90, 0, 10), AROUND
    model = make_forecaster(latitude, longitude, open_edges="reflect").eval()
    saved = json.loads((model.save(tmp_path / "model") / "model.json").read_text())
    assert saved["config"]["edges"] == {"north": "pole", "south": "reflect", "longitude": "periodic"}
    loaded = Forecaster.load(tmp_path / "model")
    assert loaded.config == model.config and loaded.network.grid.edges == Edges("pole", "reflect", "periodic")
    state = torch.randn(1, 1, 10, 36)
    assert torch.equal(loaded(state), model(state))


@pytest.mark.parametrize("boundary", ["sphere", "zeros"])
def test_a_model_saved_before_edges_were_chosen_loads_as_it_was_trained(
    tmp_path, monkeypatch, caplog, boundary
):
    region = np.linspace(60, 30, 16), np.linspace(160, 202, 22)
    edges = SPHERE if boundary == "sphere" else Edges.uniform("zeros")
    model = make_forecaster(*region, boundary=boundary, edges=edges).eval()
    metadata = model.metadata()
    del metadata["config"]["edges"], metadata["config"]["open_edges"]
    monkeypatch.setattr(Forecaster, "metadata", lambda self: metadata)
    model.save(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        loaded = Forecaster.load(tmp_path / "model")
    state = torch.randn(1, 1, 16, 22)
    assert loaded.config.edges == edges and torch.equal(loaded(state), model(state))
    assert ("opposite edges are joined" in caplog.text) == (boundary == "sphere")


def test_a_training_on_the_sphere_resumes_whichever_way_the_sphere_was_asked_for():
    globe = np.linspace(90, -90, 19), AROUND
    named, chosen, open_ = (
        make_forecaster(*globe, **config).config
        for config in ({"boundary": "sphere"}, {"boundary": "auto"}, {"boundary": "zeros"})
    )
    of = [identity("store", config, TrainConfig()) for config in (named, chosen, open_)]
    assert check_identity(of[0], of[1]) == [] and of[0]["model"]["boundary"] == "sphere"
    with pytest.raises(Exception, match="another training"):
        check_identity(of[0], of[2])
