"""What a workload is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

Workload: TypeAlias = tuple[Callable[..., object], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One workload: `make(device)` returns the callee and its inputs; `bytes` is its least memory traffic (0: compute).

    `make` raises ImportError where it needs a package that is not installed.
    """

    name: str
    make: Callable[[str], Workload]
    bytes: int = 0


def short(dtype: torch.dtype) -> str:
    """Return a dtype's name as case names have it."""
    return str(dtype).removeprefix("torch.")
