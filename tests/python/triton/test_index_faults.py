"""Kernels report indices out of range, and none that a mask takes out; what they load is in range all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.codegen.triton.pointwise import POINTWISE
from mkwrap.errors import IndexRangeError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import size_symbol
from mkwrap.ir.nodes import BoundsCheck, Nest
from mkwrap.stages import Binary, FaultArgument, Kernel, Schedule, Source, Variant
from mkwrap.toolchain.cubin import compile_source
from tests.python.fuse.scheduled import schedule_of
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import F32, H100, I0, I1
from tests.python.triton.test_programs import storage


def gather(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x[index] * 2


def reduction(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return functional.embedding(index, x).sum(-1)


def normalised(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x[index] + 1, -1)


def joined(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The second half reads no index: its lanes must not be checked."""
    return torch.cat([x[index], x + 1])


FUNCTIONS = [gather, reduction, normalised, joined]
GOOD, BAD = [0, 6, 3, 6, 1], [0, 6, 3, 7, 1]


def checked(schedule: Schedule) -> Kernel:
    (found,) = (k for k in schedule.kernels.values() if any(isinstance(i, BoundsCheck) for i in k.nest.body))
    return found


def variants(kernel: Kernel) -> list[Source]:
    return [
        template.render(kernel, Variant(kernel.name, template.name, params), H100)
        for template in LANGUAGE.templates
        for params in template.space(kernel, H100)[:3]
    ]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_variant_reports_an_index_out_of_range(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    x = torch.randn(7, 12)
    schedule, names = schedule_of(function, (x, torch.tensor(GOOD)))
    found = checked(schedule)
    (step,) = (step for step in schedule.steps if step.kernel == found.name)
    for source in variants(found):
        for index, expected in ((GOOD, function(x, torch.tensor(GOOD))), (BAD, None)):
            given = dict(zip(names, (x.flatten(), torch.tensor(index)), strict=True))
            memory = {
                k: given.get(name, storage(schedule.program.buffers[name])) for k, name in enumerate(step.buffers)
            }
            if expected is None:
                with pytest.raises(IndexRangeError):
                    run(source, memory, tmp_path)
            else:
                run(source, memory, tmp_path)
                output = memory[step.buffers.index(schedule.program.outputs[0].buffer)]
                torch.testing.assert_close(output.view(expected.shape), expected)


@pytest.mark.parametrize("wide", [False, True])
def test_an_index_into_a_table_of_dynamic_size_0_is_reported_and_loads_nothing(wide: bool, tmp_path: Path) -> None:
    s0 = size_symbol("s0")
    body = BodyBuilder()
    place = body.bounds_check(body.load("arg1", DType.INT64, (I0,)), s0)
    body.store("arg2", (I0, I1), body.load("arg0", F32, (place, I1)))
    nest = Nest("gather", axes((I0, 3), (I1, 4)), (), body.body())
    reads = [buffer("arg0", F32, [s0, 4]), buffer("arg1", DType.INT64, [3])]
    case = kernel(nest, reads, [buffer("arg2", F32, [3, 4])])
    params = (("block", 32), ("num_warps", 1), *((("wide", True),) if wide else ()))
    source = POINTWISE.render(case, Variant("gather", "pointwise", params), H100)
    (load,) = [line for line in source.text.splitlines() if "tl.load(arg0" in line]
    assert ">= 0)" in load
    assert isinstance(compile_source(source, H100), Binary)
    index, out = torch.tensor([1, 0, 1]), torch.empty(12)
    table = torch.randn(2, 4)
    run(source, {0: table.flatten(), 1: index, 2: out}, tmp_path, {s0: 2})
    assert torch.equal(out.view(3, 4), table[index])
    with pytest.raises(IndexRangeError):
        run(source, {0: torch.empty(0), 1: index, 2: out}, tmp_path, {s0: 0})


def test_kernels_without_checks_take_no_word() -> None:
    schedule, _ = schedule_of(lambda x: (x + 1).sum(0), (torch.randn(7, 12),))
    for found in schedule.kernels.values():
        for source in variants(found):
            assert not any(isinstance(a, FaultArgument) for launch in source.launches for a in launch.args)
