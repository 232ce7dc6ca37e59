"""The catalog's own dataset types."""

from weathermill.datasets.checkpoints import CheckpointsDataset
from weathermill.datasets.forecaster import ForecasterDataset
from weathermill.datasets.forecasts import ForecastsDataset
from weathermill.datasets.netcdf import NetCDFDataset
from weathermill.datasets.raw_fields import RawFieldsDataset
from weathermill.datasets.regrid_weights import RegridWeightsDataset
from weathermill.datasets.tensor_store import TensorContent, TensorStoreDataset
from weathermill.datasets.whole import WholeDataset
from weathermill.datasets.zarr_fields import ZarrArrayDataset, ZarrFieldsDataset

__all__ = [
    "CheckpointsDataset",
    "ForecasterDataset",
    "ForecastsDataset",
    "NetCDFDataset",
    "RawFieldsDataset",
    "RegridWeightsDataset",
    "TensorContent",
    "TensorStoreDataset",
    "WholeDataset",
    "ZarrArrayDataset",
    "ZarrFieldsDataset",
]
