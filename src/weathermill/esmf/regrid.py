"""The regridding operator of the ESMPy interface."""

from __future__ import annotations

import numpy as np

from weathermill.esmf.constants import (
    ExtrapMethod,
    FileMode,
    NormType,
    PoleMethod,
    Region,
    RegridMethod,
    UnmappedAction,
)


class Regrid:
    """Weights between two fields, and their application.

    Parameters
    ----------
    srcfield, dstfield : Field
        From where and to where.
    filename : str, optional
        Write the weights to this file, in ESMF's layout.
    filemode : FileMode, optional
        Whether the file holds the weights alone (the default) or what belongs to the grids as well.
    src_mask_values, dst_mask_values : sequence of int, optional
        Mask values that mean masked; without them masks are not looked at.
    regrid_method : RegridMethod, optional
        Bilinear by default.
    pole_method : PoleMethod, optional
        How a periodic source is closed at the poles: by the mean of the last row (the default, and the only
        one supported) or not at all.
    norm_type : NormType, optional
        Normalisation of conservative weights.
    unmapped_action : UnmappedAction, optional
        Whether unmapped destination points are an error (the default) or left without weights.
    ignore_degenerate : bool, optional
        Whether degenerate cells are left out instead of refused.
    extrap_method : ExtrapMethod, optional
        How unmapped points are filled.
    extrap_dist_exponent, extrap_num_src_pnts : optional
        The power (2 by default) and the number of points (8 by default) of the inverse-distance mean.
    factors : bool, optional
        Accepted for ESMPy's sake: the weights are always kept.
    vector_regrid : bool, optional
        Whether the two values along the one extra dimension are the east and north components of a vector,
        which is then regridded in three dimensions.

    Raises
    ------
    ValueError
        If an option is not supported, the method does not suit the fields, cells are degenerate, or points
        stay unmapped where that is an error.
    """

    def __init__(
        self,
        srcfield=None,
        dstfield=None,
        filename=None,
        rh_filename=None,
        src_mask_values=None,
        dst_mask_values=None,
        regrid_method=None,
        pole_method=None,
        regrid_pole_npoints=None,
        line_type=None,
        norm_type=None,
        unmapped_action=None,
        ignore_degenerate=None,
        create_rh=None,
        filemode=None,
        src_file=None,
        dst_file=None,
        src_file_type=None,
        dst_file_type=None,
        src_frac_field=None,
        dst_frac_field=None,
        factors=True,
        extrap_method=None,
        extrap_dist_exponent=None,
        extrap_num_src_pnts=None,
        extrap_num_levels=None,
        large_file=None,
        vector_regrid=None,
    ):
        from weathermill.esmf.weights import Options, make_weights

        unsupported = {
            "rh_filename": rh_filename,
            "regrid_pole_npoints": regrid_pole_npoints,
            "src_file": src_file,
            "dst_file": dst_file,
            "extrap_num_levels": extrap_num_levels,
        }
        given = [name for name, value in unsupported.items() if value is not None]
        if given:
            raise ValueError(f"weathermill.esmf does not support these arguments of Regrid: {given}")
        if pole_method not in (None, PoleMethod.NONE, PoleMethod.ALLAVG):
            raise ValueError("only PoleMethod.ALLAVG and PoleMethod.NONE are supported")
        if vector_regrid:
            for field in (srcfield, dstfield):
                if field.ndbounds != (2,):
                    raise ValueError("vector_regrid needs fields with ndbounds=[2]: east and north component")
        self.srcfield = srcfield
        self.dstfield = dstfield
        self.regrid_method = RegridMethod.BILINEAR if regrid_method is None else regrid_method
        self.pole_method = pole_method
        self.norm_type = NormType.DSTAREA if norm_type is None else norm_type
        self.unmapped_action = UnmappedAction.ERROR if unmapped_action is None else unmapped_action
        self.src_mask_values = src_mask_values
        self.dst_mask_values = dst_mask_values
        self.ignore_degenerate = ignore_degenerate
        self.extrap_method = ExtrapMethod.NONE if extrap_method is None else extrap_method
        self.vector_regrid = vector_regrid
        self.finalized = False
        options = Options(
            regrid_method=self.regrid_method,
            pole_method=pole_method,
            norm_type=self.norm_type,
            src_mask_values=src_mask_values,
            dst_mask_values=dst_mask_values,
            ignore_degenerate=bool(ignore_degenerate),
            extrap_method=self.extrap_method,
            extrap_dist_exponent=2.0 if extrap_dist_exponent is None else float(extrap_dist_exponent),
            extrap_num_src_pnts=8 if extrap_num_src_pnts is None else int(extrap_num_src_pnts),
        )
        self._weights = make_weights(srcfield, dstfield, options)
        if self.unmapped_action == UnmappedAction.ERROR:
            self._refuse_unmapped()
        if filename is not None:
            from weathermill.esmf.weightfile import write_weight_file

            write_weight_file(
                filename,
                self._weights,
                srcfield,
                dstfield,
                options,
                auxiliary=filemode == FileMode.WITHAUX,
            )

    def _refuse_unmapped(self):
        from weathermill.esmf import geometry

        wanted = np.ones(geometry.size_of(self.dstfield), dtype=bool)
        masked = geometry.mask_of(self.dstfield, self.dst_mask_values)
        if masked is not None:
            wanted &= ~masked
        wanted[self._weights.row - 1] = False
        if wanted.any():
            raise ValueError(
                f"{int(wanted.sum())} destination points are unmapped (the first is {int(np.argmax(wanted))}, "
                "counted from 0); pass unmapped_action=UnmappedAction.IGNORE to leave them so"
            )

    def get_factors(self, deep_copy=False):
        """Return weights and pairs.

        Parameters
        ----------
        deep_copy : bool, optional
            Whether to copy the weights.

        Returns
        -------
        factors : numpy.ndarray
            float64, shape ``(n,)``.
        pairs : numpy.ndarray
            int32, shape ``(n, 2)``: source and destination, from 1.
        """
        row, col, factor = self._weights
        return (factor.copy() if deep_copy else factor), np.stack([col, row], axis=1)

    def get_weights_dict(self, deep_copy=False):
        """Return the weights as a dictionary with the keys ``row_dst``, ``col_src`` (from 1), ``weights``."""
        row, col, factor = self._weights
        if deep_copy:
            row, col, factor = row.copy(), col.copy(), factor.copy()
        return {"row_dst": row, "col_src": col, "weights": factor}

    def __call__(self, srcfield=None, dstfield=None, zero_region=None):
        """Apply the weights.

        Parameters
        ----------
        srcfield, dstfield : Field, optional
            Fields on the same grids; those of the operator by default.
        zero_region : Region, optional
            What is set to zero first: all (the default), what is mapped, or nothing.

        Returns
        -------
        Field
            The destination field.
        """
        from scipy import sparse

        source = self.srcfield if srcfield is None else srcfield
        target = self.dstfield if dstfield is None else dstfield
        n_source = int(np.prod(source.spatial_shape))
        n_target = int(np.prod(target.spatial_shape))
        row, col, factor = self._weights
        matrix = sparse.csr_matrix((factor, (row - 1, col - 1)), shape=(n_target, n_source))
        values = source.data.reshape((n_source, -1), order="F")
        result = self._apply_to_vectors(matrix, values) if self.vector_regrid else matrix @ values
        out = target.data.reshape((n_target, -1), order="F")
        if zero_region in (None, Region.TOTAL):
            out = result
        else:
            mapped = np.unique(row) - 1
            before = 0.0 if zero_region == Region.SELECT else out[mapped]
            out = out.copy()
            out[mapped] = before + result[mapped]
        target.data[...] = out.reshape(target.data.shape, order="F")
        return target

    def _apply_to_vectors(self, matrix, values):
        from weathermill.esmf.geometry import lonlat_of
        from weathermill.esmf.sphere import east_north

        east, north = east_north(*lonlat_of(self.srcfield))
        vectors = values[:, :1] * east + values[:, 1:] * north
        vectors = matrix @ vectors
        east, north = east_north(*lonlat_of(self.dstfield))
        return np.stack([(vectors * east).sum(axis=1), (vectors * north).sum(axis=1)], axis=1)

    def destroy(self):
        """Let go of the weights; arrays that were handed out stay."""
        self.finalized = True

    def __repr__(self):
        return f"Regrid(method={RegridMethod(self.regrid_method).name}, weights={len(self._weights.factor)})"
