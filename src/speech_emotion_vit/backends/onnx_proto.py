"""Write an ONNX file: the few messages of its protocol-buffer format that a model needs.

The ``onnx`` package does the same and more, but importing it takes longer than a whole prediction may. Field numbers
are those of ``onnx.proto3``; the tests have ``onnx.checker`` read what is written here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IR_VERSION = 10
OPSET = 20  # the first with Gelu; ONNX Runtime 1.17 and later
Attribute: TypeAlias = "int | float | str | bytes | Sequence[int]"  # bytes are a graph
Array: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.int64] | npt.NDArray[np.int8]"

FLOAT, INT64, BOOL, FLOAT16, DOUBLE = 1, 7, 9, 10, 11  # of TensorProto.DataType
_TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.float16): FLOAT16, np.dtype(np.int8): 3, np.dtype(np.int64): INT64}
_VARINT, _BYTES, _FIXED32 = 0, 2, 5  # wire types


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are two's complement of 64 bits
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _chunk(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def tensor(name: str, array: Array) -> bytes:
    """Return a TensorProto of float32, float16, int8 or int64 values."""
    dims = b"".join(_integer(1, size) for size in array.shape)
    values = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return dims + _integer(2, _TYPES[array.dtype]) + _chunk(8, name) + _chunk(9, values)


def node(kind: str, inputs: Iterable[str], outputs: Sequence[str], attributes: Mapping[str, Attribute]) -> bytes:
    """Return a NodeProto of the default domain, named after its first output."""
    parts = [_chunk(1, name) for name in inputs] + [_chunk(2, name) for name in outputs]
    parts += [_chunk(3, outputs[0]), _chunk(4, kind)]
    return b"".join(parts + [_chunk(5, _attribute(*item)) for item in attributes.items()])


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, bytes):
        return _chunk(1, name) + _chunk(6, value) + _integer(20, 5)
    if isinstance(value, int):
        return _chunk(1, name) + _integer(3, value) + _integer(20, 2)
    if isinstance(value, float):
        return _chunk(1, name) + _varint(2 << 3 | _FIXED32) + struct.pack("<f", value) + _integer(20, 1)
    if isinstance(value, str):
        return _chunk(1, name) + _chunk(4, value) + _integer(20, 3)
    return _chunk(1, name) + b"".join(_integer(8, each) for each in value) + _integer(20, 7)


def value(name: str, dims: Sequence[int | str] | None, kind: int = FLOAT) -> bytes:
    """Return the ValueInfoProto of an input or output; a dimension is a size or a name, None says nothing of them."""
    shape = b"".join(_chunk(1, _chunk(2, dim) if isinstance(dim, str) else _integer(1, dim)) for dim in dims or ())
    tensor_type = _integer(1, kind) + (b"" if dims is None else _chunk(2, shape))
    return _chunk(1, name) + _chunk(2, _chunk(1, tensor_type))


def graph(
    name: str,
    nodes: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
    initializers: Iterable[bytes] = (),
) -> bytes:
    """Return a GraphProto: that of a model, or the body of a loop."""
    parts = [*(_chunk(1, each) for each in nodes), _chunk(2, name), *(_chunk(5, each) for each in initializers)]
    parts += [_chunk(11, each) for each in inputs]
    parts += [_chunk(12, each) for each in outputs]
    return b"".join(parts)


def model(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a ModelProto, the content of an ``.onnx`` file, of a graph."""
    opset = _chunk(1, "") + _integer(2, OPSET)
    properties = b"".join(_chunk(14, _chunk(1, key) + _chunk(2, text)) for key, text in metadata.items())
    header = _integer(1, IR_VERSION) + _chunk(2, "speech-emotion-vit")
    return header + _chunk(7, content) + _chunk(8, opset) + properties
