"""Kernels of dynamic sizes on a real GPU: every template and form, at sizes that no point named, against the oracle."""

from __future__ import annotations

import pytest

from mkwrap import _C
from mkwrap.options import Options
from mkwrap.points import binary_at
from mkwrap.stages import Binary
from mkwrap.targets import cuda
from tests.python.triton.oracle import answer, compare, copy
from tests.python.triton.symbolic import CASES, ROUNDED, Sizes, offered, values
from tests.python.triton.test_cuda_kernels import launch_all

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _C.cuda_devices(), reason="no CUDA device, or no driver for it"),
]

# Beyond what a grid's other axes hold, many tiles each way, long rows; by the number of sizes.
LARGE: dict[int, tuple[Sizes, ...]] = {
    1: ((70_000,),),
    2: ((70_000, 96), (130, 5000), (3, 100_001)),
    3: ((300, 200, 500), (1, 4096, 64), (1031, 64, 96)),
}
# Sums of many float32 in another order than the oracle's.
LOOSE = 2e-4


@pytest.mark.parametrize("name", CASES)
def test_c29_every_template_and_form_equals_the_oracle_at_other_sizes(name: str) -> None:
    case = CASES[name]
    target = cuda.resolve("cuda", Options())
    context = _C.CudaContext(0)
    every = (*case.sizes, *LARGE[len(case.points[0])])
    room = max(case.tolerance, ROUNDED if name == "layer_norm" else LOOSE)
    starts = {sizes: case.fill(case.build(*sizes)) for sizes in every}
    wants = {sizes: answer(case.build(*sizes), start) for sizes, start in starts.items()}
    seen = set()
    for source in offered(case, target.device, most=1):
        binary = target.compile(source)
        assert isinstance(binary, Binary), binary
        for sizes in every:
            if not all(guard.holds(values(sizes)) for guard in source.guards):
                continue
            got = copy(starts[sizes])
            launch_all(context, binary_at(binary, values(sizes)), got)
            compare(case.build(*sizes), got, wants[sizes], room, room, f"{source.variant.label} at {sizes}")
            seen.add(source.variant.template)
    assert seen == case.templates
