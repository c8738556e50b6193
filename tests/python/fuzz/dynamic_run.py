"""Calls random programs with dynamic sizes at many shapes: `python -m tests.python.fuzz.dynamic_run CXX CACHE SEED COUNT SHAPES`.

Run by test_dynamic_shapes.py in a process that has AddressSanitizer's runtime, with a compiler that instruments the libraries.
Writes one line per program; fails on the first call that is neither right nor refused by the right error.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from tests.python.fuzz.dynamic_programs import EXAMPLE, HINTS, RANGES, draw_program, draw_sizes

import mkwrap
from mkwrap import Options


def main() -> None:
    """Run the programs of some seeds."""
    cxx, cache, *numbers = sys.argv[1:]
    first, count, shapes = map(int, numbers)
    torch.set_num_threads(1)
    for seed in range(first, first + count):
        called, refused = check(seed, shapes, Options(cxx=cxx, cache_dir=Path(cache), tune="off", threads=2))
        sys.stdout.write(f"seed {seed}: {called} calls equal eager, {refused} refused\n")


def check(seed: int, shapes: int, options: Options) -> tuple[int, int]:
    """Compile one program once and call it at so many shapes; returns how many were right and how many refused."""
    program = draw_program(seed)
    options = replace(options, hints={name: HINTS[name] for name in program.symbols})
    torch.manual_seed(seed)
    examples = tuple(torch.randn(shape) for shape in program.shapes(EXAMPLE))
    model = mkwrap.compile(program.run, examples, dynamic_shapes=program.dynamic_shapes(), options=options)
    ranges = {s["name"]: (s["low"], s["high"]) for s in model.manifest["symbols"]}
    # Capture may narrow a range (an extremum of nothing is an error), never widen it.
    assert all(RANGES[name][0] <= low <= RANGES[name][0] + 1 for name, (low, _) in ranges.items()), ranges
    generator = random.Random(seed)
    called = refused = 0
    for _ in range(shapes):
        sizes = draw_sizes(sorted(program.symbols), generator)
        inputs = tuple(torch.randn(shape) for shape in program.shapes(sizes))
        where = f"seed {seed} at {sizes}\n{program}"
        if any(not low <= sizes[name] <= high for name, (low, high) in ranges.items()):
            try:
                model(*inputs)
            except mkwrap.errors.InputError:
                refused += 1
                continue
            raise AssertionError(f"not refused: {where}")
        try:
            values = program.values(*inputs)
        except (IndexError, RuntimeError) as error:
            assert "ind" in str(error).lower(), f"{error}: {where}"  # noqa: PT017
            # What no result needs is not computed, and its positions are not checked.
            with suppress(mkwrap.errors.IndexRangeError, mkwrap.errors.InputError):
                model(*inputs)
            refused += 1
            continue
        # Sums come in another order: what is lost is a share of the largest value on the way.
        scale = max([float(value.nan_to_num().abs().max()) for value in values if value.numel()], default=1.0)
        for ours, eager in zip(model(*inputs), values[-3:], strict=True):
            close = torch.allclose(ours, eager, rtol=1e-4, atol=1e-5 * max(scale, 1.0), equal_nan=True)
            assert close and ours.shape == eager.shape, f"{where}\nours {ours}\neager {eager}"  # noqa: PT018
        called += 1
    return called, refused


if __name__ == "__main__":
    main()
