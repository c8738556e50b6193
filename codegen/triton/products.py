"""Reads a kernel as a matrix product for the Triton templates: extents, operand dtype, and which templates suit it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mkwrap.codegen.matmul_roles import MatmulRoles, matmul_roles, split_axes
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.triton.spelling import NARROW_FLOATS
from mkwrap.codegen.triton.tile import static
from mkwrap.ir.dtypes import DType
from mkwrap.stages import Kernel

_THIN = 8


@dataclass(frozen=True)
class Extents:
    """Sizes of a product of at least one element."""

    batch: int
    m: int
    n: int
    k: int

    @property
    def thin(self) -> bool:
        """Whether so few rows or columns are asked for that reading the matrix is all the work."""
        return min(self.m, self.n) <= _THIN


@dataclass(frozen=True)
class Product:
    """A kernel as C[batch, m, n] = epilogue(Σ_k A · B); `extents` is None where one of them is dynamic."""

    kernel: Kernel
    roles: MatmulRoles
    extents: Extents | None

    @property
    def tensor_cores(self) -> bool:
        """Whether `tl.dot` takes the operands: both 16-bit floats or both float32, accumulated in float32."""
        dtype = self.roles.a.dtype
        return (
            dtype in (*NARROW_FLOATS, DType.FLOAT32)
            and self.roles.b.dtype is dtype
            and self.roles.accumulator is DType.FLOAT32
        )


def product_of(kernel: Kernel) -> Product | None:
    """Read a kernel as a matrix product, or return None where it is none or has no elements."""
    nest = split_axes(kernel.nest)
    roles = matmul_roles(nest, buffers_of(kernel))
    if roles is None:
        return None
    batch, m, n, k = (static([axis.extent for axis in axes]) for axes in (roles.batch, roles.m, roles.n, roles.k))
    if 0 in (batch, m, n, k):
        return None
    known = None if batch is None or m is None or n is None or k is None else Extents(batch, m, n, k)
    return Product(replace(kernel, nest=nest), roles, known)


def reduces_better(kernel: Kernel) -> bool:
    """Whether the reduction templates suit a kernel: it is no matrix product, or a thin one, or one of unknown size."""
    product = product_of(kernel)
    return product is None or product.extents is None or product.extents.thin
