"""How each peer compiles a function. Run as a program, times one compile in this fresh process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch

import mkwrap

Callee: TypeAlias = Callable[..., object]
Compile: TypeAlias = Callable[[Callee, Sequence[torch.Tensor], str], Callee]


class _AsModule(torch.nn.Module):
    """Presents a function as the module that torch.export asks for."""

    def __init__(self, fn: Callee) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: torch.Tensor) -> object:
        """Call it."""
        return self.fn(*args)


def _eager(fn: Callee, _inputs: Sequence[torch.Tensor], _device: str) -> Callee:
    return torch.no_grad()(fn)


def _torch_compile(fn: Callee, inputs: Sequence[torch.Tensor], _device: str) -> Callee:
    torch._dynamo.reset()
    compiled: Callee = torch.no_grad()(torch.compile(fn))
    compiled(*inputs)
    return compiled


def _aoti(fn: Callee, inputs: Sequence[torch.Tensor], _device: str) -> Callee:
    # The public entry of AOTInductor lives in this module; only this comparison names it, and pays for the import.
    import torch._inductor as inductor  # noqa: PLC0415

    module = fn if isinstance(fn, torch.nn.Module) else _AsModule(fn)
    with torch.no_grad():
        package = inductor.aoti_compile_and_package(torch.export.export(module, tuple(inputs), strict=False))
    loaded: Callee = inductor.aoti_load_package(package)
    return loaded


def _mkwrap(fn: Callee, inputs: Sequence[torch.Tensor], _device: str) -> Callee:
    return mkwrap.compile(fn, tuple(inputs))


PEERS: Mapping[str, Compile] = {
    "eager": _eager,
    "torch.compile": _torch_compile,
    "AOTInductor": _aoti,
    "mkwrap": _mkwrap,
}


def copy_of(nbytes: int, device: str) -> Callable[[], object]:
    """Return a call that moves as many bytes as a kernel with this traffic: a copy of half of them."""
    source = torch.empty(nbytes // 2, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _main() -> None:
    peer, device, caches = sys.argv[1:]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(caches, "inductor"))
    os.environ["TRITON_CACHE_DIR"] = str(Path(caches, "triton"))
    os.environ["MKWRAP_CACHE_DIR"] = str(Path(caches, "mkwrap"))
    inputs = (torch.randn(8, device=device),)
    start = time.perf_counter()
    compiled = PEERS[peer](lambda x: x + 1, inputs, device)
    compiled(*inputs)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    _main()
