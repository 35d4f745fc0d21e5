"""Arrays by name in NumPy's format, without pickles: a file of them is measured before it is read."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppo_agent.checkpoint.manifest import DamagedError
from ppo_agent.common.types import Array

# Dtype and shape by name.
Described = Mapping[str, Any]

# Header of an array, and its entries in the archive, its name aside.
_OVERHEAD = 1024
_LONGEST_HEADER = 10_000


def describe(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Dtype and shape of arrays by name, what JSON knows."""
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def pack(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a file.

    Raises:
        ValueError: one is of objects, which NumPy would pickle.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject or array.dtype.kind == "V":
            raise ValueError(f"{name} has dtype {array.dtype}, expected numbers or booleans.")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def largest_size(described: Described) -> int:
    """How large a file of such arrays can be, in bytes.

    Raises:
        DamagedError: they are no arrays of numbers.
    """
    return _OVERHEAD + sum(_num_bytes(name, kind) + _OVERHEAD + 4 * len(name) for name, kind in described.items())


def unpack(data: bytes, described: Described) -> dict[str, Array]:
    """The arrays in a file, which must hold what was `described`.

    Raises:
        DamagedError: it holds something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            if sorted(names) != sorted(described):
                odd = sorted(set(names) ^ set(described)) or names
                raise DamagedError(f"variables.npz and the manifest differ in {odd[0]}")
            return {
                name: _read_array(archive, info, name, described[name])
                for name, info in zip(names, archive.infolist(), strict=True)
            }
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise DamagedError("variables.npz is no archive of arrays") from error


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, kind: Any) -> Array:
    expected = _num_bytes(name, kind)
    is_stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    if not is_stored or not expected <= info.file_size <= expected + _LONGEST_HEADER:
        raise DamagedError(f"variables.npz holds {name} in {info.file_size} bytes, expected {expected}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file, max_header_size=_LONGEST_HEADER)
    if [str(dtype), list(shape)] != [kind[0], list(kind[1])]:
        raise DamagedError(f"variables.npz holds {name} as {dtype} {shape}, expected {kind[0]} {kind[1]}")
    with archive.open(info) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _num_bytes(name: str, kind: Any) -> int:
    try:
        dtype, shape = kind
        size = np.dtype(dtype)
        if size.kind not in "biufcSU" or not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(kind)
    except (TypeError, ValueError) as error:
        raise DamagedError(f"manifest.json describes {name} as {kind!r:.80}, expected dtype and shape") from error
    return size.itemsize * math.prod(shape)
