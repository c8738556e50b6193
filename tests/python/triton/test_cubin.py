"""Cubins without a GPU: compiled, described, deterministic, refused with a reason; nothing left behind."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from mkwrap.codegen.triton.split import SPLIT
from mkwrap.errors import CompilerError
from mkwrap.stages import Binary, Device, Kernel, Rejected, Source
from mkwrap.targets.cuda import DEVICES
from mkwrap.toolchain.cubin import compile_source
from mkwrap.toolchain.cubin_elf import read_resources
from tests.python.triton.nests import (
    BF16,
    F64,
    H100,
    associative,
    layer_norm,
    padded_gather,
    product,
    reduction,
    scan,
    softmax,
    sort,
    transpose,
)
from tests.python.triton.oracle import sources
from triton import knobs

CASES: dict[str, Callable[[], Kernel]] = {
    "transpose": lambda: transpose(512, 700, BF16),
    "gather": lambda: padded_gather(100, 33),
    "softmax": lambda: softmax(8192, 4096, BF16),
    "softmax_columns": lambda: softmax(4096, 60, outer=True),
    "layer_norm": lambda: layer_norm(8192, 4096, BF16),
    "sum": lambda: reduction("sum", 1, 2**28),
    "argmax": lambda: reduction("argmax", 64, 3000),
    "columns": lambda: reduction("sum", 1024, 2**17, outer=True),
    "cumsum": lambda: scan("sum", 1, 2**26),
    "cummax": lambda: scan("cummax", 300, 2**16),
    "cumsum_columns": lambda: scan("sum", 4096, 8192, outer=True),
    "linear": lambda: associative(2, 2**18),
    "cumsum_doubles": lambda: scan("sum", 64, 4096, F64),
    "wide_cumsum": lambda: scan("sum", 1, 2**31 + 5),
    "sort": lambda: sort(500, 4096),
    "sort_doubles": lambda: sort(500, 300, F64, descending=True),
    "product": lambda: product(512, 512, 512, BF16),
    "wide_columns": lambda: reduction("sum", 2**12, 2**20, BF16, outer=True),
    "wide_product": lambda: product(2**17, 2**15, 512, BF16),
    "wide_doubles": lambda: product(2**17, 2**15, 64, F64),
    "doubles": lambda: product(64, 64, 64, F64),
}


def compiled(source: Source, device: Device = H100) -> Binary:
    binary = compile_source(source, device)
    assert isinstance(binary, Binary), binary
    return binary


@pytest.mark.parametrize("name", CASES)
def test_r04_every_template_compiles_for_sm_90_without_a_gpu(name: str) -> None:
    for source in sources(CASES[name](), H100, most=1):
        binary = compiled(source)
        assert len(binary.images) == len(source.launches)
        for image, launch in zip(binary.images, source.launches, strict=True):
            assert image.entry == launch.entry
            assert image.blob[:4] == b"\x7fELF"
            assert launch.entry.encode() in image.blob
            assert image.threads == 32 * launch.options["num_warps"]
            assert 0 < image.registers <= 255
            assert image.shared_bytes <= H100.shared_bytes


@pytest.mark.parametrize("arch", DEVICES)
def test_every_architecture_in_the_table_compiles(arch: str) -> None:
    source = next(sources(softmax(64, 512, BF16), DEVICES[arch]))
    assert compiled(source, DEVICES[arch]).images[0].blob[:4] == b"\x7fELF"


def test_equal_sources_give_equal_bytes_and_no_path_enters_them() -> None:
    source = next(sources(softmax(64, 512), H100))
    first, second = compiled(source), compiled(source)
    assert first == second
    assert b"/tmp" not in first.images[0].blob
    assert b"kernel.py" not in first.images[0].blob


def test_nothing_is_left_behind() -> None:
    before = (dict(os.environ), set(sys.modules), knobs.cache.dir, knobs.compilation.disable_line_info)
    compiled(next(sources(softmax(64, 256), H100)))
    after = (dict(os.environ), set(sys.modules), knobs.cache.dir, knobs.compilation.disable_line_info)
    assert before[0] == after[0]
    assert "mkwrap_generated" not in after[1]
    assert before[2:] == after[2:]


def test_c35_too_much_shared_memory_is_a_rejection_with_the_numbers() -> None:
    source = next(sources(product(4096, 4096, 4096, BF16), H100))
    result = compile_source(source, replace(H100, shared_bytes=48 * 1024))
    assert isinstance(result, Rejected)
    assert "bytes of shared memory, the device has 49152" in result.reason


def test_c35_text_that_triton_refuses_is_a_rejection_with_its_message() -> None:
    source = next(sources(transpose(64, 64), H100))
    broken = replace(source, text=source.text.replace("tl.load(arg0", "tl.load(missing"))
    result = compile_source(broken, H100)
    assert isinstance(result, Rejected)
    assert "missing" in result.reason
    # The process goes on to compile others.
    compiled(source)


def test_sources_and_binaries_travel_between_processes() -> None:
    source = next(sources(reduction("sum", 1, 8192), H100, ["split"]))
    binary = compiled(pickle.loads(pickle.dumps(source)))
    assert pickle.loads(pickle.dumps(binary)) == binary


def test_registers_and_stack_are_read_from_the_elf() -> None:
    image = compiled(next(sources(layer_norm(64, 4096, BF16), H100))).images[0]
    found = read_resources(image.blob)
    assert (found.registers, found.stack_bytes) == (image.registers, image.spilled_bytes)
    with pytest.raises(CompilerError, match="not a 64-bit ELF"):
        read_resources(b"nothing")
    with pytest.raises(CompilerError):
        read_resources(image.blob[:80])


def test_split_is_offered_only_where_rows_leave_the_device_idle() -> None:
    assert SPLIT.space(reduction("sum", 1, 2**20), H100)
    assert not SPLIT.space(reduction("sum", 100_000, 4096), H100)
    assert not SPLIT.space(reduction("sum", 1, 100), H100)
