"""The target that inputs live on."""

from __future__ import annotations

import torch
import torch.utils._pytree as pytree

from mkwrap.errors import TargetError


def home_of(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Return the target of the devices the inputs live on."""
    kinds = {leaf.device.type for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
    if not kinds:
        return "cpu"
    if len(kinds) > 1 or not kinds <= {"cpu", "cuda"}:
        found = " and ".join(sorted(kinds))
        raise TargetError(f"the inputs live on {found}; put them all on the CPU or all on one GPU, or name a target")
    return kinds.pop()
