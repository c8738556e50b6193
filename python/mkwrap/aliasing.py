"""Which example tensors share memory, and what that means for inputs that are changed in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mkwrap.errors import AliasingError
from mkwrap.stages import InputSpec


def _extent(sample: torch.Tensor) -> tuple[int, int]:
    """Return first and one-past-last byte address a tensor can touch."""
    if sample.numel() == 0:
        return 0, 0
    last = sum((n - 1) * s for n, s in zip(sample.shape, sample.stride(), strict=True))
    return sample.data_ptr(), sample.data_ptr() + (last + 1) * sample.element_size()


def apart(samples: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Replace samples that overlap an earlier one by others like them.

    A graph has one placeholder per argument; where two are one tensor that is changed, export fails without saying why.
    """
    apart: list[torch.Tensor] = []
    ranges: list[tuple[int, int]] = []
    for sample in samples:
        begin, end = _extent(sample)
        overlaps = any(begin < other_end and other_begin < end for other_begin, other_end in ranges)
        apart.append(_like(sample) if overlaps else sample)
        ranges.append((begin, end))
    return apart


def _like(sample: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(sample.shape, sample.stride(), dtype=sample.dtype, device=sample.device)


def _overlaps_itself(sample: torch.Tensor) -> bool:
    """Whether two elements may share memory: unless each dim, by ascending stride, steps over all those before it."""
    if sample.numel() == 0:
        return False
    reached = 0
    for stride, size in sorted((s, n) for n, s in zip(sample.shape, sample.stride(), strict=True) if n > 1):
        if stride <= reached:
            return True
        reached += (size - 1) * stride
    return False


def refuse_overlap(inputs: Sequence[InputSpec], samples: Sequence[torch.Tensor]) -> None:
    """Raise `AliasingError` for a mutated input that overlaps itself or another."""
    ranges = [_extent(sample) for sample in samples]
    for k, spec in enumerate(inputs):
        if not spec.mutated:
            continue
        if _overlaps_itself(samples[k]):
            raise AliasingError(
                f"{spec.path} is changed in place, but several of its elements share memory (an expanded tensor?); "
                "pass a contiguous copy"
            )
        for j, other in enumerate(inputs):
            if j != k and ranges[k][0] < ranges[j][1] and ranges[j][0] < ranges[k][1]:
                raise AliasingError(
                    f"{spec.path} is changed in place and shares memory with {other.path}; "
                    "pass tensors that do not overlap, or clone one of them"
                )
