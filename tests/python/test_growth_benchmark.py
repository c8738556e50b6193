"""What `benchmarks.growth` reads of a library, and that a compile without measuring builds no more than it embeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from benchmarks.growth import Size, size_of, table
from torch.export import Dim

import mkwrap
from mkwrap import Options
from mkwrap.toolchain.library_file import read_library

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x * self.weight, -1)


def compiled(lengths: Sequence[int], cache: Path) -> Size:
    options = Options(tune="off", hints={"n": lengths}, cache_dir=cache, progress=False)
    dims = ({1: Dim("n", min=1, max=1024)},)
    model = mkwrap.compile(
        Scaled(), (torch.randn(8, lengths[0]),), dynamic_shapes=dims, target="cuda:sm_90", options=options
    )
    assert model.compilation is not None
    size = size_of(read_library(model.path), model.compilation.seconds)
    kept = [path for path in cache.rglob("*") if path.is_file() and "binary" in path.parts]
    assert len(kept) == size.binaries, "what no table has is not built"
    return size


def test_without_measuring_only_what_is_embedded_is_built(tmp_path: Path) -> None:
    one, two = compiled([60], tmp_path / "one"), compiled([60, 500], tmp_path / "two")
    assert (one.points, two.points) == (1, 2)
    assert one.weight_bytes == two.weight_bytes == 32
    assert one.cubin_bytes < one.library_bytes
    (name,) = one.kernels
    before, after = one.kernels[name], two.kernels[name]
    assert (before.winners, after.winners) == (1, 2)
    assert set(before.binaries) < set(after.binaries)
    assert before.bytes == sum(before.binaries.values()) < after.bytes
    assert two.cubin_bytes - one.cubin_bytes == after.bytes - before.bytes
    lines = list(table(one, two))
    assert lines[-1].startswith(f"  cubin bytes {one.cubin_bytes} → {two.cubin_bytes}: ratio ")
    assert any(line.split()[0] == name for line in lines)
