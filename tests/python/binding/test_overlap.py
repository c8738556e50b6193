"""What a run writes shares memory with nothing else of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mkwrap import errors
from tests.python.binding.hand_library import ADD_ONE, HandLibrary, Tensor, build
from tests.python.binding.test_inputs import opened

pytestmark = pytest.mark.toolchain


def test_outputs_share_memory_with_nothing(tmp_path: Path) -> None:
    model = opened(build(ADD_ONE, tmp_path / "add_one.so"))
    shared = torch.zeros(24)
    for start in (0, 1, 7):
        with pytest.raises(errors.InputError, match=r"output\[0\]: expected memory of its own.*args\[0\]"):
            model.run_into((shared[start : start + 8],), (shared[4:12] if start else shared[:8],))
    model.run_into((shared[:8],), (shared[8:16],))
    model.run_into((shared[16:],), (shared[8:16],))
    assert shared.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 8


def test_outputs_share_memory_with_no_other_output(tmp_path: Path) -> None:
    library = HandLibrary([], [Tensor((4,)), Tensor((0,)), Tensor((4,))], "out[0][0] = out[2][0] = 1; return 0;")
    model = opened(build(library, tmp_path / "two.so"), "tuple")
    memory = torch.zeros(8)
    with pytest.raises(errors.InputError, match=r"output\[2\]: .*output\[0\]"):
        model.run_into((), (memory[:4], memory[:0], memory[3:7]))
    model.run_into((), (memory[:4], memory[2:2], memory[4:]))
    assert memory.tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
