"""The classes behave as ESMPy's do, as far as xESMF and its users see them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from weathermill.esmf import interface as esmpy


def _grid(nx=12, ny=6, periodic=False, corners=True, **options):
    grid = esmpy.Grid(
        np.array([nx, ny]),
        staggerloc=esmpy.StaggerLoc.CENTER,
        coord_sys=esmpy.CoordSys.SPH_DEG,
        num_peri_dims=1 if periodic else None,
        **options,
    )
    lon_b, lat_b = np.linspace(0, 360, nx + 1), np.linspace(-90, 90, ny + 1)
    lon, lat = 0.5 * (lon_b[1:] + lon_b[:-1]), 0.5 * (lat_b[1:] + lat_b[:-1])
    grid.get_coords(0)[...] = lon[:, None]
    grid.get_coords(1)[...] = lat[None, :]
    if corners and not periodic:
        grid.add_coords(staggerloc=esmpy.StaggerLoc.CORNER)
        grid.get_coords(0, staggerloc=esmpy.StaggerLoc.CORNER)[...] = lon_b[:, None]
        grid.get_coords(1, staggerloc=esmpy.StaggerLoc.CORNER)[...] = lat_b[None, :]
    return grid


def _points(lon, lat):
    points = esmpy.LocStream(len(lon), coord_sys=esmpy.CoordSys.SPH_DEG)
    points["ESMF:Lon"], points["ESMF:Lat"] = np.asarray(lon, float), np.asarray(lat, float)
    return points


def _mesh(polygons):
    mesh = esmpy.Mesh(2, 2, coord_sys=esmpy.CoordSys.SPH_DEG)
    corners = np.concatenate([np.asarray(p, float) for p in polygons])
    mesh.add_nodes(len(corners), np.arange(len(corners)) + 1, corners.ravel(), np.zeros(len(corners)))
    types = [len(p) for p in polygons]
    middles = np.array([np.mean(p, axis=0) for p in polygons])
    mesh.add_elements(
        len(polygons),
        np.arange(len(polygons)) + 1,
        types,
        np.arange(len(corners)),
        element_coords=middles.ravel(),
    )
    return mesh


def _regrid(source, target, **options):
    options.setdefault("unmapped_action", esmpy.UnmappedAction.IGNORE)
    return esmpy.Regrid(source, target, **options)


def test_the_module_has_the_names_of_esmpy():
    module = importlib.import_module("esmpy")
    for name in ("Grid", "Mesh", "LocStream", "Field", "Regrid", "Manager", "RegridMethod", "ExtrapMethod"):
        assert getattr(module, name) is getattr(esmpy, name)
    from esmpy.api.grid import Grid
    from esmpy.api.locstream import LocStream

    assert module.api.locstream.LocStream is LocStream is esmpy.LocStream
    assert Grid is esmpy.Grid
    assert module.local_pet() == 0
    assert module.pet_count() == 1
    with module.Manager(debug=True) as manager:
        manager.barrier()


def test_shapes_of_a_grid():
    grid = _grid()
    assert grid.has_corners
    assert grid.staggerloc == [True, False, False, True]
    assert grid.size[esmpy.StaggerLoc.CENTER].tolist() == [12, 6]
    assert grid.size[esmpy.StaggerLoc.CORNER].tolist() == [13, 7]
    assert grid.periodic_dim is None
    periodic = _grid(periodic=True)
    periodic.add_coords(staggerloc=esmpy.StaggerLoc.CORNER)
    assert periodic.size[esmpy.StaggerLoc.CORNER].tolist() == [12, 7]
    assert (periodic.num_peri_dims, periodic.periodic_dim) == (1, 0)
    assert "12" in repr(grid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_index": np.array([4, 4, 4])}, "2-D grids only"),
        ({"filename": "grid.nc"}, "not from files"),
        ({"max_index": np.array([4, 4]), "coord_sys": esmpy.CoordSys.CART}, "spherical"),
        ({"max_index": np.array([4, 4]), "num_peri_dims": 1, "periodic_dim": 1}, "first dimension"),
        ({"max_index": np.array([4, 4]), "coord_typekind": esmpy.TypeKind.R4}, "R8"),
        ({}, "max_index"),
    ],
)
def test_unsupported_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        esmpy.Grid(**arguments)


def test_coordinates_and_items_that_are_not_there():
    grid = esmpy.Grid(np.array([3, 3]))
    with pytest.raises(ValueError, match="add_coords"):
        grid.get_coords(0)
    with pytest.raises(ValueError, match="mask"):
        grid.get_item(esmpy.GridItem.MASK)
    grid.add_item(esmpy.GridItem.AREA)[...] = 2.0
    assert (grid.get_item(esmpy.GridItem.AREA) == 2.0).all()


def test_areas_of_a_grid_and_a_mesh():
    field = esmpy.Field(_grid())
    field.get_area()
    assert field.data.shape == (12, 6)
    assert field.data.sum() == pytest.approx(4 * np.pi, rel=1e-13)
    octants = _mesh([[(0, 0), (90, 0), (0, 90)], [(90, 0), (180, 0), (90, 90)]])
    field = esmpy.Field(octants, meshloc=esmpy.MeshLoc.ELEMENT)
    field.get_area()
    np.testing.assert_allclose(field.data, np.pi / 2, rtol=1e-14)


def test_areas_need_corners():
    with pytest.raises(ValueError, match="corners"):
        esmpy.Field(_grid(corners=False)).get_area()


def test_radians_are_as_good_as_degrees():
    target = esmpy.Field(_points([10.0, 200.0], [5.0, -70.0]))
    degrees = _regrid(esmpy.Field(_grid(periodic=True)), target)
    source = esmpy.Grid(
        np.array([12, 6]), staggerloc=[0], coord_sys=esmpy.CoordSys.SPH_RAD, num_peri_dims=1, pole_kind=[1, 1]
    )
    for dim in (0, 1):
        source.get_coords(dim)[...] = np.deg2rad(_grid(periodic=True).get_coords(dim))
    radians = _regrid(esmpy.Field(source), target)
    np.testing.assert_allclose(radians.get_factors()[0], degrees.get_factors()[0], atol=1e-14)


def test_applying_weights_to_fields_with_extra_dimensions():
    source, target = (esmpy.Field(_grid(n, m), ndbounds=[3]) for n, m in ((12, 6), (8, 4)))
    regrid = _regrid(source, target, regrid_method=esmpy.RegridMethod.CONSERVE)
    rng = np.random.default_rng(0)
    source.data[...] = rng.normal(size=source.data.shape)
    result = regrid(source, target)
    assert result is target
    areas = []
    for field in (source, target):
        area = esmpy.Field(field.grid)
        area.get_area()
        areas.append(area.data)
    for k in range(3):
        before = (areas[0] * source.data[..., k]).sum()
        assert (areas[1] * target.data[..., k]).sum() == pytest.approx(before, abs=1e-13)


def test_zero_region_keeps_unmapped_values():
    source, target = esmpy.Field(_grid()), esmpy.Field(_points([15.0, 15.0], [0.0, 89.0]))
    regrid = _regrid(source, target)
    source.data[...] = 2.0
    target.data[...] = 7.0
    assert regrid(source, target, zero_region=esmpy.Region.SELECT).data == pytest.approx([2.0, 7.0])
    assert regrid(source, target, zero_region=esmpy.Region.EMPTY).data == pytest.approx([4.0, 7.0])
    assert regrid().data == pytest.approx([2.0, 0.0])


def test_unmapped_points_are_an_error_unless_ignored():
    with pytest.raises(ValueError, match="1 destination points are unmapped"):
        esmpy.Regrid(esmpy.Field(_grid()), esmpy.Field(_points([15.0, 15.0], [0.0, 89.0])))


def test_factors_and_dictionary_are_the_same():
    regrid = _regrid(esmpy.Field(_grid(periodic=True)), esmpy.Field(_points([17.0], [3.0])))
    factors, pairs = regrid.get_factors(deep_copy=True)
    made = regrid.get_weights_dict(deep_copy=True)
    assert set(made) == {"row_dst", "col_src", "weights"}
    np.testing.assert_array_equal(pairs, np.stack([made["col_src"], made["row_dst"]], axis=1))
    np.testing.assert_array_equal(factors, made["weights"])
    assert made["row_dst"].dtype == made["col_src"].dtype == np.int32
    assert made["row_dst"].min() >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regrid_method": esmpy.RegridMethod.CONSERVE_2ND}, "CONSERVE_2ND"),
        ({"extrap_method": esmpy.ExtrapMethod.CREEP}, "CREEP"),
        ({"pole_method": esmpy.PoleMethod.TEETH}, "ALLAVG"),
        ({"src_file": "a.nc"}, "src_file"),
        ({"vector_regrid": True}, "ndbounds"),
        ({"regrid_method": esmpy.RegridMethod.CONSERVE}, "cells"),
    ],
)
def test_unsupported_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _regrid(esmpy.Field(_grid()), esmpy.Field(_points([0.0], [89.0])), **options)


def test_bilinear_needs_connected_points():
    with pytest.raises(ValueError, match="connected"):
        _regrid(esmpy.Field(_points([0.0], [0.0])), esmpy.Field(_grid()))


def test_point_lists_need_coordinates_of_their_length():
    points = esmpy.LocStream(3)
    with pytest.raises(ValueError, match="shape"):
        points["ESMF:Lon"] = np.zeros(4)
    with pytest.raises(ValueError, match="ESMF:Lon and ESMF:Lat"):
        _regrid(esmpy.Field(_grid()), esmpy.Field(points), regrid_method=esmpy.RegridMethod.NEAREST_STOD)


def test_masks_of_point_lists():
    points = _points([10.0, 20.0], [0.0, 0.0])
    points["ESMF:Mask"] = np.array([0, 1])
    regrid = _regrid(
        esmpy.Field(_grid()),
        esmpy.Field(points),
        regrid_method=esmpy.RegridMethod.NEAREST_STOD,
        dst_mask_values=[0],
    )
    assert regrid.get_weights_dict()["row_dst"].tolist() == [2]


def test_poles_can_be_left_open():
    source, target = esmpy.Field(_grid(periodic=True)), esmpy.Field(_points([15.0], [89.0]))
    assert len(_regrid(source, target, pole_method=esmpy.PoleMethod.NONE).get_factors()[0]) == 0
    assert len(_regrid(source, target).get_factors()[0]) == 12


@pytest.mark.parametrize(
    ("method", "count"), [(esmpy.ExtrapMethod.NEAREST_STOD, 1), (esmpy.ExtrapMethod.NEAREST_IDAVG, 5)]
)
def test_extrapolation_fills_what_is_unmapped(method, count):
    source, target = esmpy.Field(_grid()), esmpy.Field(_points([17.0, 15.0], [1.0, 89.0]))
    regrid = _regrid(source, target, extrap_method=method, extrap_num_src_pnts=count)
    made = regrid.get_weights_dict()
    assert (made["row_dst"] == 2).sum() == count
    np.testing.assert_allclose(np.bincount(made["row_dst"], weights=made["weights"])[1:], 1.0, atol=1e-14)


def test_vectors_turn_with_the_sphere():
    source, target = (esmpy.Field(_grid(n, m), ndbounds=[2]) for n, m in ((72, 36), (45, 24)))
    regrid = _regrid(source, target, vector_regrid=True)
    plain = _regrid(source, target)

    # A solid-body rotation about an axis in the equator's plane.
    def wind(grid):
        lon, lat = (np.deg2rad(grid.get_coords(dim)) for dim in (0, 1))
        return np.stack([-np.sin(lat) * np.cos(lon), np.sin(lon)], axis=-1)

    source.data[...] = wind(source.grid)
    mapped = np.unique(plain.get_weights_dict()["row_dst"]) - 1
    errors = []
    for operator in (regrid, plain):
        got = operator(source, target).data.reshape(-1, 2, order="F")
        errors.append(np.abs(got - wind(target.grid).reshape(-1, 2, order="F"))[mapped].max())
    assert errors[0] < 0.005
    assert errors[0] < errors[1]


def test_polygons_across_the_dateline():
    across = _mesh([[(170, -10), (-170, -10), (-170, 10), (170, 10)]])
    same = _mesh([[(170, -10), (190, -10), (190, 10), (170, 10)]])
    source = esmpy.Field(_grid(36, 18))
    factors = [
        _regrid(
            source,
            esmpy.Field(mesh, meshloc=esmpy.MeshLoc.ELEMENT),
            regrid_method=esmpy.RegridMethod.CONSERVE,
        ).get_weights_dict()
        for mesh in (across, same)
    ]
    np.testing.assert_array_equal(factors[0]["col_src"], factors[1]["col_src"])
    np.testing.assert_allclose(factors[0]["weights"], factors[1]["weights"], atol=1e-14)
    assert factors[0]["weights"].sum() == pytest.approx(1.0, abs=1e-13)


def test_concave_polygons_as_source_and_destination():
    arrow = [(0, 0), (60, 0), (60, 60), (45, 10)]
    whole, parts = _mesh([arrow]), _mesh([[arrow[0], arrow[1], arrow[3]], [arrow[1], arrow[2], arrow[3]]])
    grid = esmpy.Field(_grid(36, 18))
    fields = [esmpy.Field(mesh, meshloc=esmpy.MeshLoc.ELEMENT) for mesh in (whole, parts)]
    for field in fields:
        field.get_area()
    assert fields[0].data.sum() == pytest.approx(fields[1].data.sum(), rel=1e-13)
    out = [_regrid(grid, field, regrid_method=esmpy.RegridMethod.CONSERVE) for field in fields]
    assert out[0].get_factors()[0].sum() == pytest.approx(1.0, abs=1e-12)
    back = [_regrid(field, grid, regrid_method=esmpy.RegridMethod.CONSERVE) for field in fields]
    shares = [np.zeros(36 * 18) for _ in back]
    for share, regrid in zip(shares, back, strict=True):
        made = regrid.get_weights_dict()
        np.add.at(share, made["row_dst"] - 1, made["weights"])
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-13)


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([(0, 0), (10, 0), (20, 0)], "degenerate"),
        ([(0, 0), (10, 0), (0, 0)], "degenerate"),
        ([(0, 0), (10, 0)], "three"),
        ([(0, 0), (10, 10), (10, 0), (0, 20)], "cross"),
    ],
)
def test_polygons_that_are_none_are_refused(polygon, message):
    with pytest.raises(ValueError, match=message):
        _mesh([polygon])


def test_meshes_that_do_not_fit_together():
    mesh = esmpy.Mesh(2, 2)
    with pytest.raises(ValueError, match="add_nodes"):
        mesh.add_elements(1, [1], [3], [0, 1, 2])
    with pytest.raises(ValueError, match="pairs of coordinates"):
        mesh.add_nodes(2, [1, 2], [0.0, 0.0, 1.0], [0, 0])
    mesh.add_nodes(3, [1, 2, 3], [0.0, 0.0, 10.0, 0.0, 0.0, 10.0], [0, 0, 0])
    with pytest.raises(ValueError, match="beyond the nodes"):
        mesh.add_elements(1, [1], [3], [0, 1, 3])
    with pytest.raises(ValueError, match="parametric_dim"):
        esmpy.Mesh(3, 3)


def test_bilinear_from_the_nodes_of_a_mesh():
    mesh = _mesh([[(0, 0), (10, 0), (10, 10), (0, 10)], [(10, 0), (20, 0), (10, 10)]])
    regrid = _regrid(
        esmpy.Field(mesh, meshloc=esmpy.MeshLoc.NODE), esmpy.Field(_points([5.0, 12.0], [5.0, 2.0]))
    )
    made = regrid.get_weights_dict()
    assert np.bincount(made["row_dst"])[1:].tolist() == [4, 3]
    np.testing.assert_allclose(np.bincount(made["row_dst"], weights=made["weights"])[1:], 1.0, atol=1e-14)


def test_corner_latitudes_beyond_the_poles_are_moved_onto_them():
    grids = []
    for lat_b in (np.linspace(-100, 100, 11), np.clip(np.linspace(-100, 100, 11), -90, 90)):
        grid = _grid(12, 10)
        grid.get_coords(1, staggerloc=esmpy.StaggerLoc.CORNER)[...] = lat_b[None, :]
        field = esmpy.Field(grid)
        field.get_area()
        grids.append(field.data)
    np.testing.assert_array_equal(grids[0], grids[1])
    assert grids[0].sum() == pytest.approx(4 * np.pi, rel=1e-13)


def test_coordinates_that_are_not_finite_are_named():
    grid = _grid()
    grid.get_coords(1)[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"point 38 .*latitude nan"):
        _regrid(esmpy.Field(grid), esmpy.Field(_points([0.0], [0.0])))


def test_destroying_leaves_handed_out_arrays():
    source, target = esmpy.Field(_grid()), esmpy.Field(_points([15.0], [0.0]))
    regrid = _regrid(source, target)
    made = regrid.get_weights_dict()
    for item in (regrid, source, target, source.grid, target.grid):
        item.destroy()
        assert item.finalized
    assert made["weights"].sum() == pytest.approx(1.0)
