"""Outputs, threads, contexts, and errors of a run."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mkwrap import _C, errors
from tests.python.binding.hand_library import ADD_ONE, HandLibrary, Tensor, build
from tests.python.binding.test_inputs import opened

pytestmark = pytest.mark.toolchain

SHAPES = HandLibrary(
    inputs=[],
    outputs=[
        Tensor((2, 3)),
        Tensor((2, 3), strides=(1, 2)),
        Tensor(()),
        Tensor((0, 3)),
        Tensor((4,), dtype="int64"),
        Tensor((2, 0), strides=(1, 2)),
        Tensor((3,), dtype="bool"),
    ],
    body="""
        for (int i = 0; i < 6; ++i) out[0][i] = out[1][i] = i;
        out[2][0] = 7;
        for (int i = 0; i < 4; ++i) reinterpret_cast<int64_t*>(out[4])[i] = int64_t{1} << (8 * i);
        for (int i = 0; i < 3; ++i) reinterpret_cast<bool*>(out[6])[i] = i == 1;
        return 0;""",
)


@pytest.mark.parametrize("exchange", [True, False])
def test_output_shapes_and_strides(tmp_path: Path, exchange: bool) -> None:
    model = opened(build(SHAPES, tmp_path / "shapes.so"), "list", exchange=exchange)
    results = model()
    assert isinstance(results, list)
    a, b, scalar, empty, ints, empty_strided, flags = results
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert b.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert (b.stride(), b.is_contiguous()) == ((1, 2), False)
    assert (scalar.shape, scalar.item()) == ((), 7)
    assert (empty.shape, empty_strided.shape) == ((0, 3), (2, 0))
    assert (ints.dtype, ints.tolist()) == (torch.int64, [1, 256, 65536, 1 << 24])
    assert flags.tolist() == [False, True, False]


def test_outputs_outlive_the_model(tmp_path: Path) -> None:
    model = opened(build(SHAPES, tmp_path / "shapes.so"), "tuple")
    results = model()
    gone = weakref.ref(results[1])
    del model
    gc.collect()
    assert results[1].tolist() == [[0, 2, 4], [1, 3, 5]]
    del results
    assert gone() is None


def test_index_error_leaves_the_model_usable(tmp_path: Path) -> None:
    library = HandLibrary([Tensor((1,))], [Tensor((1,))], "out[0][0] = 5; return in[0][0] < 0;")
    model = opened(build(library, tmp_path / "index.so"))
    with pytest.raises(errors.IndexRangeError, match="kernel0"):
        model(torch.tensor([-1.0]))
    with pytest.raises(IndexError):
        model(torch.tensor([-1.0]))
    assert model(torch.tensor([1.0])).item() == 5


def test_synchronize_has_nothing_to_wait_for_on_the_cpu(tmp_path: Path) -> None:
    model = opened(build(ADD_ONE, tmp_path / "add.so"))
    model.synchronize()
    model(torch.zeros(8))
    model.synchronize()


def test_unknown_instructions_are_refused(tmp_path: Path) -> None:
    library = HandLibrary([], [], "return 0;", features=("antigravity",))
    model = opened(build(library, tmp_path / "isa.so"), "tuple")
    with pytest.raises(errors.ArchitectureError, match=r"test-arch.*antigravity"):
        model.create(0)
    with pytest.raises(errors.ArchitectureError):
        model()


def test_another_abi_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.LibraryFormatError, match="version"):
        opened(build(HandLibrary([], [], "return 0;", version="99"), tmp_path / "v99.so"))


SLOW = HandLibrary(
    inputs=[Tensor((1,))],
    outputs=[Tensor((1,))],
    body="""
        float* scratch = reinterpret_cast<float*>(context->scratch);
        *scratch = in[0][0];
        usleep(20000);
        out[0][0] = *scratch;
        return 0;""",
    traffic=1 << 20,
)


def test_threads_run_at_once_on_contexts_of_their_own(tmp_path: Path) -> None:
    model = opened(build(SLOW, tmp_path / "slow.so"))
    barrier = threading.Barrier(8)

    def call(k: int) -> float:
        barrier.wait()
        return float(model(torch.tensor([float(k)])).item())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [float(k) for k in range(8)]
    assert 2 <= model.contexts <= 8, "the lock is given up during a long run"
    before = model.contexts
    for k in range(3):
        assert model(torch.tensor([float(k)])).item() == k
    assert model.contexts == before


def test_threads_on_short_runs(tmp_path: Path) -> None:
    model = opened(build(ADD_ONE, tmp_path / "add.so"))

    def call(k: int) -> bool:
        return all(torch.equal(model(torch.full((8,), float(k))), torch.full((8,), k + 1.0)) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


def test_models_load_and_unload(tmp_path: Path) -> None:
    path = build(ADD_ONE, tmp_path / "add.so")
    copies = [Path(shutil.copy(path, tmp_path / f"copy{k}.so")) for k in range(5)]
    folder = Path("/proc/self/fd")
    opened(path)
    before = len(list(folder.iterdir()))
    models = [opened(copy) for copy in copies]
    assert all(torch.equal(model(torch.zeros(8)), torch.ones(8)) for model in models)
    del models
    gc.collect()
    assert len(list(folder.iterdir())) == before
    assert "copy3.so" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("flags", [(), ("-Wl,-z,nodelete",)], ids=["unloaded", "never unloaded"])
def test_a_replaced_file_is_loaded_anew(tmp_path: Path, flags: tuple[str, ...]) -> None:
    path = tmp_path / "model.so"
    build(ADD_ONE, path, *flags)
    opened(path)
    first = opened(path)
    path.unlink()
    build(HandLibrary(ADD_ONE.inputs, ADD_ONE.outputs, ADD_ONE.body.replace("+ 1", "+ 2")), path)
    second = opened(path)
    x = torch.zeros(8)
    assert (first(x)[0].item(), second(x)[0].item()) == (1, 2)


def test_results_do_not_share_memory(tmp_path: Path) -> None:
    model = opened(build(ADD_ONE, tmp_path / "add.so"))
    results = [model(torch.full((8,), float(k))) for k in range(10)]
    assert [r[0].item() for r in results] == [k + 1.0 for k in range(10)]
    assert len({r.data_ptr() for r in results}) == 10


def test_memory_does_not_grow(tmp_path: Path) -> None:
    model = opened(build(ADD_ONE, tmp_path / "add.so"))
    x = torch.zeros(8)
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    def work(times: int) -> None:
        for _ in range(times):
            model(x)
            with pytest.raises(errors.InputError):
                model(None)

    work(2000)
    before = resident()
    work(20000)
    assert resident() - before < 2 << 20


def test_model_needs_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        _C.Model()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="not been initialised"):
        _C.Model.__new__(_C.Model)(1)
    with pytest.raises(errors.LibraryFormatError):
        _C.Model(-1, "nothing")
    model = opened(build(SHAPES, tmp_path / "shapes.so"), "tuple")
    with pytest.raises(ValueError, match="flat"):
        model.flat = "single"
    with pytest.raises(ValueError, match="expected a tuple of 0 inputs"):
        model.run((1,))
