"""The CPU targets: levels, what the machine has, and the C++ toolchain."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from mkwrap import targets
from mkwrap.errors import CompilerError, TargetError
from mkwrap.options import Options
from mkwrap.stages import Launch, Rejected, Source, Variant
from mkwrap.targets.cpu import LEVELS, cache_bytes, machine_features, model_name
from mkwrap.toolchain import cxx

CPUINFO = """processor\t: 0
model name\t: Example CPU
cpu family\t: 6
model\t\t: 85
stepping\t: 7
flags\t\t: fpu sse4_1 avx2 fma

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def text_of(body: str) -> Source:
    text = f'#include <stdint.h>\nextern "C" int32_t entry(void* const*, const int64_t*) {{ {body} }}\n'
    return Source(Variant("k", "t"), "cpp", text, (Launch("entry", ()),))


@pytest.mark.toolchain
def test_cpu_is_the_best_level_of_this_machine() -> None:
    here = targets.resolve("cpu", Options(threads=3))
    assert here.present
    assert here.name.removeprefix("cpu:") == here.device.arch
    assert here.device.units == 3
    assert here.device.vector_bytes == LEVELS[here.device.arch].vector_bytes
    assert set(here.features) <= machine_features(Path("/proc/cpuinfo").read_text())


@pytest.mark.toolchain
def test_portable_level_records_what_it_needs() -> None:
    target = targets.resolve("cpu:x86-64-v3", Options())
    assert target.device.vector_bytes == 32
    assert "avx2" in target.features
    assert not any(name.startswith("avx512") for name in target.features)
    assert "-march=x86-64-v3" in target.toolchain


@pytest.mark.parametrize("name", ["cpu:pentium", "cpu:aarch64", "tpu", "tpu:v4"])
def test_unknown_target_is_refused(name: str) -> None:
    with pytest.raises(TargetError):
        targets.resolve(name, Options())


def test_cpuinfo_is_read_for_the_first_processor() -> None:
    assert machine_features(CPUINFO) == {"fpu", "sse4_1", "avx2", "fma"}
    assert model_name(CPUINFO) == "Example CPU 6 85 7"
    assert machine_features("") == frozenset()


def test_cache_sizes_are_read_from_sysfs(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "1024K")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "type").write_text(f"{kind}\n")
        (folder / "size").write_text(f"{size}\n")
    assert cache_bytes(tmp_path) == {1: 48 * 1024, 2: 1024 * 1024}


@pytest.mark.toolchain
def test_c35_what_the_compiler_refuses_is_rejected_with_its_output() -> None:
    result = targets.resolve("cpu", Options()).compile(text_of("return undeclared;"))
    assert isinstance(result, Rejected)
    assert "undeclared" in result.reason


@pytest.mark.toolchain
def test_compile_function_travels_to_other_processes() -> None:
    compile_source = pickle.loads(pickle.dumps(targets.resolve("cpu", Options()).compile))
    assert not isinstance(compile_source(text_of("return 0;")), Rejected)


def test_missing_compiler_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(CompilerError, match="install g\\+\\+"):
        targets.resolve("cpu", Options(cxx="/nonexistent/g++"))
    with pytest.raises(CompilerError, match="cannot start"):
        cxx.compile_source(replace(text_of("return 0;")), "/nonexistent/g++", (), Path())
