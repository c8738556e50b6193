"""The element types of tensors and of scalar values."""

from __future__ import annotations

import enum


class DType(enum.Enum):
    """An element type; the value is torch's name for it."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT64 = "int64"
    INT32 = "int32"
    INT16 = "int16"
    INT8 = "int8"
    UINT64 = "uint64"
    UINT32 = "uint32"
    UINT16 = "uint16"
    UINT8 = "uint8"
    BOOL = "bool"

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory."""
        return _ITEMSIZE[self]

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type."""
        return self.value.startswith(("float", "bfloat"))

    @property
    def is_integer(self) -> bool:
        """Whether this is an integer type; bool is not."""
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        """Whether negative values exist."""
        return self.is_float or self.value.startswith("int")

    @property
    def compute(self) -> DType:
        """The type arithmetic is done in: float32 for the 16-bit floats, itself otherwise (torch's opmath type)."""
        return DType.FLOAT32 if self in (DType.FLOAT16, DType.BFLOAT16) else self


_ITEMSIZE = {
    DType.FLOAT64: 8,
    DType.FLOAT32: 4,
    DType.FLOAT16: 2,
    DType.BFLOAT16: 2,
    DType.INT64: 8,
    DType.INT32: 4,
    DType.INT16: 2,
    DType.INT8: 1,
    DType.UINT64: 8,
    DType.UINT32: 4,
    DType.UINT16: 2,
    DType.UINT8: 1,
    DType.BOOL: 1,
}
