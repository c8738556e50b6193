"""CUDA targets: names, the device table, and what a live device changes."""

from __future__ import annotations

import pickle

import pytest

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.errors import TargetError
from mkwrap.options import Options
from mkwrap.stages import Binary
from mkwrap.targets import cuda, resolve
from mkwrap.targets.cuda import DEVICES, LiveDevice, runs
from tests.python.triton.nests import softmax
from tests.python.triton.oracle import sources

H200 = LiveDevice("NVIDIA H200", (9, 0), 132, 232448, 60 * 2**20, 13000)
A10 = LiveDevice("NVIDIA A10", (8, 6), 72, 101376, 6 * 2**20, 12080)


@pytest.mark.parametrize("arch", DEVICES)
def test_named_architectures_need_no_device(arch: str) -> None:
    target = cuda.resolve(f"cuda:{arch}", Options(), live=())
    assert (target.name, target.kind, target.present) == (f"cuda:{arch}", "cuda", False)
    assert target.device == DEVICES[arch]
    assert target.language is LANGUAGE
    assert target.toolchain.startswith("triton ")


def test_cuda_is_this_machines_device_with_its_sizes() -> None:
    target = cuda.resolve("cuda", Options(), live=(H200,))
    assert (target.name, target.present) == ("cuda:sm_90", True)
    assert (target.device.name, target.device.l2_bytes) == ("NVIDIA H200", 60 * 2**20)


def test_another_architecture_keeps_the_table() -> None:
    target = cuda.resolve("cuda:sm_100", Options(), live=(H200,))
    assert not target.present
    assert target.device == DEVICES["sm_100"]


def test_only_the_first_device_is_measured_on() -> None:
    target = cuda.resolve("cuda:sm_90", Options(), live=(A10, H200))
    assert not target.present
    assert target.device == DEVICES["sm_90"]
    assert cuda.resolve("cuda:sm_90", Options(), live=(H200, A10)).present


def test_later_minor_versions_run_earlier_cubins_up_to_8() -> None:
    assert cuda.resolve("cuda:sm_80", Options(), live=(A10,)).device.units == 72
    assert not runs("sm_89", (8, 6))
    assert not runs("sm_90", (9, 1))
    assert not runs("sm_80", (9, 0))


def test_cuda_without_a_device_and_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(TargetError, match=r"no CUDA device.*cuda:sm_90"):
        cuda.resolve("cuda", Options(), live=())
    with pytest.raises(TargetError, match=r"sm_35.*known: cuda:sm_80"):
        cuda.resolve("cuda:sm_35", Options(), live=())
    with pytest.raises(TargetError):
        cuda.resolve("cuda", Options(), live=(LiveDevice("Tesla K80", (3, 7), 13, 49152, 2**20, 11000),))


def test_the_family_is_registered_and_its_compiler_is_picklable() -> None:
    target = resolve("cuda:sm_90", Options())
    compile_source = pickle.loads(pickle.dumps(target.compile))
    source = next(sources(softmax(8, 64), target.device))
    assert isinstance(compile_source(source), Binary)
