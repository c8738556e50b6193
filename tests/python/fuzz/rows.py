"""The steps of random programs that work on rows: reductions, scans and sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

Pick: TypeAlias = Callable[[int], int]
"""`pick(n)` draws from 0 … n − 1."""


@dataclass(frozen=True)
class Step:
    """One expression over `v`; what it needs of its operands and what it promises."""

    text: str
    wants_exact: bool = False
    gives_exact: bool = True


def reduction(a: str, x: torch.Tensor, pick: Pick) -> Step:
    d = pick(max(x.dim(), 1))
    keep = bool(pick(2))
    exact = [
        f"{a}.amax({d}, {keep})",
        f"{a}.amin({d})",
        f"{a}.max({d}, {keep})[1]",
        f"{a}.min({d})[0]",
        f"{a}.argmax({d})",
        f"{a}.argmin()",
        f"{a}.any({d}, {keep})",
        f"{a}.all()",
        f"torch.count_nonzero({a}, {d})",
    ]
    rounded = [
        f"{a}.sum({d}, {keep})",
        f"{a}.sum()",
        f"{a}.sum({d}, dtype=torch.float32)",
        f"{a}.prod({d})",
        f"{a}.mean({d}, {keep})",
        f"{a}.mean((0, -1))",
        f"{a}.softmax({d})",
        f"{a}.log_softmax({d})",
        f"{a}.logsumexp({d}, {keep})",
    ]
    amplifying = [
        f"{a}.var({d})",
        f"{a}.std({d}, correction=0)",
        f"torch.var_mean({a}, {d}, keepdim={keep})[{pick(2)}]",
        f"torch.linalg.vector_norm({a}, {1 + pick(3)}, {d})",
        f"F.layer_norm({a}, {a}.shape[{d}:])",
        f"F.rms_norm({a}, {a}.shape[-1:])",
        f"F.group_norm({a}, 1)",
        f"F.normalize({a}, dim={d})",
    ]
    which = pick(3)
    texts = (exact, rounded, amplifying)[which]
    return Step(texts[pick(len(texts))], wants_exact=which != 1, gives_exact=which == 0)


def scan(a: str, x: torch.Tensor, pick: Pick) -> Step:
    d = pick(max(x.dim(), 1))
    exact = [
        f"{a}.cummax({d})[{pick(2)}]",
        f"{a}.cummin({d})[{pick(2)}]",
        f"{a}.sort({d}, descending={bool(pick(2))})[0]",
        f"{a}.sort(stable=True, dim={d})[1]",
        f"{a}.topk({min(2, x.shape[d]) if x.dim() else 1}, {d})[0]",
    ]
    rounded = [f"{a}.cumsum({d})", f"{a}.cumprod({d})", f"{a}.logcumsumexp({d})", f"{a}.flip({d}).cumsum({d})"]
    which = pick(2)
    texts = (exact, rounded)[which]
    return Step(texts[pick(len(texts))], wants_exact=which == 0, gives_exact=which == 0)
