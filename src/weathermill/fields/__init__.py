"""The science on labelled arrays: from any source to canonical fields, grids, weights and statistics.

Nothing here knows Kedro, MLflow or PyTorch. The modules, in the order in which data passes through them:

``opening``      sources (NetCDF, Zarr, globs, URLs) to lazy datasets
``inspection``   what is wrong with them
``conventions``  lazy datasets to canonical fields
``grids``        target grids, cell corners, exact cell areas
``regridding``   weights, made once, and their application
``flatten``      canonical fields to channels and back
``statistics``   training-period statistics of channels
"""
