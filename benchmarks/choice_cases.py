"""The cases of `benchmarks.choice`: single kernels over shapes and dtypes where different variants win."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from benchmarks.case import Case, Workload, short

Fn = Callable[..., object]
Shape = tuple[int, ...]

_FLOATS = (torch.float32, torch.bfloat16)

_ROWS: dict[str, Fn] = {
    "sum": lambda x: x.sum(-1),
    "amax": lambda x: x.amax(-1),
    "argmax": lambda x: x.argmax(-1),
    "var_mean": lambda x: torch.var_mean(x, -1),
    "softmax": lambda x: torch.softmax(x, -1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms norm": lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6),
    "cumsum": lambda x: x.cumsum(-1),
    "logsumexp of gelu": lambda x: torch.logsumexp(F.gelu(x), -1),
}
_COLUMNS: dict[str, Fn] = {
    "column sum": lambda x: x.sum(-2),
    "column softmax": lambda x: torch.softmax(x, -2),
    "column argmax": lambda x: x.argmax(-2),
}
_POINTWISE: dict[str, Fn] = {
    "gelu": F.gelu,
    "transposed add": lambda x: (x.mT + 1).contiguous(),
}
_PRODUCTS: dict[str, Fn] = {
    "product": lambda x, w: x @ w,
    "product, bias, gelu": lambda x, w: F.gelu(x @ w + w[0]),
}

# Many short rows, as many as long, few long ones.
_SHAPES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((16384, 64), (1024, 1024), (8, 200_000)),
    "cuda": ((131072, 64), (4096, 4096), (16, 2**20)),
}
_COLUMN_SHAPES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((16384, 64), (1024, 1024)),
    "cuda": ((131072, 64), (4096, 4096)),
}
_PRODUCT_SHAPES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((8, 512, 512), (128, 384, 384), (256, 1024, 256)),
    "cuda": ((16, 4096, 4096), (512, 768, 3072), (4096, 4096, 1024)),
}


def cases(device: str) -> tuple[Case, ...]:
    """Return every case; `device` is "cpu" or "cuda"."""
    return tuple(_cases(device))


def _cases(device: str) -> Iterator[Case]:
    for table, shapes in ((_ROWS, _SHAPES), (_COLUMNS, _COLUMN_SHAPES), (_POINTWISE, _COLUMN_SHAPES)):
        for name, fn in table.items():
            for shape in shapes[device]:
                for dtype in _FLOATS:
                    yield _case(name, fn, (shape,), dtype)
    for name, fn in _PRODUCTS.items():
        for m, k, n in _PRODUCT_SHAPES[device]:
            for dtype in _FLOATS:
                yield _case(name, fn, ((m, k), (k, n)), dtype)


def _case(name: str, fn: Fn, shapes: tuple[Shape, ...], dtype: torch.dtype) -> Case:
    def make(device: str) -> Workload:
        return fn, tuple(torch.randn(shape, device=device).to(dtype) for shape in shapes)

    sizes = " · ".join("×".join(map(str, shape)) for shape in shapes)
    return Case(f"{name} {sizes} {short(dtype)}", make)
