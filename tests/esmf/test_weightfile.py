from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from weathermill.esmf import interface as esmpy


@pytest.fixture
def fields():
    xesmf = pytest.importorskip("xesmf")
    from xesmf.frontend import ds_to_ESMFgrid

    source, target = xesmf.util.grid_global(30, 30), xesmf.util.grid_global(45, 36)
    mask = np.ones((6, 12), dtype=int)
    mask[2, 3:6] = 0
    source["mask"] = (("y", "x"), mask)
    grids = [ds_to_ESMFgrid(grid, need_bounds=True)[0] for grid in (source, target)]
    return [esmpy.Field(grid) for grid in grids]


def _write(fields, path, **options):
    return esmpy.Regrid(
        *fields,
        filename=str(path),
        regrid_method=options.pop("regrid_method", esmpy.RegridMethod.CONSERVE),
        unmapped_action=esmpy.UnmappedAction.IGNORE,
        src_mask_values=[0],
        **options,
    )


def test_by_default_the_file_holds_the_weights_alone(fields, tmp_path):
    path = tmp_path / "weights.nc"
    made = _write(fields, path).get_weights_dict()
    with xr.open_dataset(path) as file:
        assert set(file.variables) == {"row", "col", "S"}
        np.testing.assert_array_equal(file["row"], made["row_dst"])
        np.testing.assert_array_equal(file["col"], made["col_src"])
        np.testing.assert_array_equal(file["S"], made["weights"])
    assert [item.name for item in tmp_path.iterdir()] == ["weights.nc"]


@pytest.mark.parametrize("norm", [esmpy.NormType.DSTAREA, esmpy.NormType.FRACAREA])
def test_the_whole_layout(fields, tmp_path, norm):
    path = tmp_path / "weights.nc"
    _write(fields, path, filemode=esmpy.FileMode.WITHAUX, norm_type=norm)
    with xr.open_dataset(path) as file:
        assert dict(file.sizes) == {
            "n_s": file.sizes["n_s"],
            "n_a": 72,
            "n_b": 40,
            "src_grid_rank": 2,
            "dst_grid_rank": 2,
        }
        assert file["src_grid_dims"].values.tolist() == [12, 6]
        assert file["dst_grid_dims"].values.tolist() == [8, 5]
        np.testing.assert_allclose(file["area_a"].sum(), 4 * np.pi, rtol=1e-13)
        np.testing.assert_allclose(file["area_b"].sum(), 4 * np.pi, rtol=1e-13)
        assert int((file["mask_a"] == 0).sum()) == 3
        assert file.attrs["normalization"] == ("fracarea" if norm else "destarea")
        assert "weathermill.esmf" in file.attrs["provider"]
        if norm == esmpy.NormType.DSTAREA:
            # Used parts of the source and covered parts of the destination are the same area.
            used = float((file["frac_a"] * file["area_a"]).sum())
            assert used == pytest.approx(float((file["frac_b"] * file["area_b"]).sum()), rel=1e-12)
            assert used < 4 * np.pi
            assert (file["frac_a"].values[file["mask_a"].values == 0] == 0).all()


def test_a_file_that_cannot_be_written_leaves_nothing(fields, tmp_path):
    with pytest.raises(OSError):
        _write(fields, tmp_path / "missing" / "weights.nc")
    assert list(tmp_path.iterdir()) == []


def test_xesmf_reads_it_back(fields, tmp_path):
    import xesmf as xe

    path = tmp_path / "weights.nc"
    grids = xe.util.grid_global(30, 30), xe.util.grid_global(45, 36)
    made = xe.Regridder(*grids, "conservative", filename=str(path))
    again = xe.Regridder(*grids, "conservative", weights=str(path))
    np.testing.assert_array_equal(made.weights.data.todense(), again.weights.data.todense())
