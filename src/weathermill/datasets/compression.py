"""Lossless compression of stores, by name."""

from __future__ import annotations

import re
from typing import Any

from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from weathermill.errors import ParameterError

#: What ``benchmarks/compression.py`` found the best trade.
DEFAULT = "blosc-zstd-3-bitshuffle"


def compressors(name: str) -> tuple[Any, ...]:
    """Return the codecs that a name stands for, as xarray's encoding takes them, and a checksum of each chunk.

    Without the checksum a flipped bit is decompressed to other values, and nobody notices.

    Parameters
    ----------
    name
        ``none``, ``zstd-<level>``, or ``blosc-<zstd or lz4>-<level>-<shuffle or bitshuffle>``. Shuffling puts bytes (or
        bits) of the same significance beside each other, which in floating-point fields are alike.

    Raises
    ------
    ParameterError
        For any other name.
    """
    if name == "none":
        return (Crc32cCodec(),)
    if plain := re.fullmatch(r"zstd-(\d+)", name):
        return (ZstdCodec(level=int(plain[1]), checksum=False), Crc32cCodec())
    if blosc := re.fullmatch(r"blosc-(zstd|lz4)-(\d)-(shuffle|bitshuffle)", name):
        return (BloscCodec(cname=blosc[1], clevel=int(blosc[2]), shuffle=blosc[3]), Crc32cCodec())
    raise ParameterError(
        f"the compression {name!r} is unknown: none, zstd-<level>, or blosc-<zstd or lz4>-<level>-<shuffle or bitshuffle>",
        where="save_args.compression",
        remedy="Correct `save_args: {compression: …}` of the dataset in the catalog.",
    )
