"""Plain dataclasses as arguments and results, also from a saved library."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import Options


@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    scale: int


@dataclasses.dataclass
class Result:
    scaled: torch.Tensor
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]]
    note: None = None


def run(batch: Batch) -> Result:
    return Result(batch.x * batch.scale, {"halves": (batch.x[:2], batch.x[2:] + 1)})


@pytest.mark.toolchain
def test_r10_plain_dataclasses_go_in_and_out(tmp_path: Path, quick: Options) -> None:
    batch = Batch(torch.randn(4), 3)
    model = mkwrap.compile(run, (batch,), options=quick)
    model.save(tmp_path / "run.so")
    for callee in (model, mkwrap.load(tmp_path / "run.so")):
        result = callee(batch)
        assert type(result) is Result
        assert result.note is None
        torch.testing.assert_close(result.scaled, batch.x * 3)
        torch.testing.assert_close(result.parts["halves"][1], batch.x[2:] + 1)
        assert result.parts["halves"][0].data_ptr() == batch.x.data_ptr()
        with pytest.raises(mkwrap.errors.InputError, match=r"args\[0\]\.scale.*3.*4"):
            callee(Batch(batch.x, 4))
