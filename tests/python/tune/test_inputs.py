"""What kernels are measured on: values in range, constants' own bytes, tolerances that fit the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy
from tests.python.tune.disagreement import disagreement
from tests.python.tune.kernels import built, choose, options_in, plus_one, schedule_of, source_of, target_of, vector

from mkwrap.errors import DynamicShapeError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, size_symbol
from mkwrap.ir.nodes import Axis, Buffer, Nest, Role
from mkwrap.stages import Access, BufferArgument, ConstantData, Kernel, Launch, Parameter, Program, Schedule, Step
from mkwrap.tune.accuracy import accuracies
from mkwrap.tune.contest import Accuracy, Fill, Memory
from mkwrap.tune.expected import expected_results
from mkwrap.tune.inputs import index_limits, memories
from mkwrap.tune.values import differences, make, standard

ROW, COLUMN = axis_symbol("i"), axis_symbol("r")


def _nest(body: BodyBuilder, extent: int = 8, reduced: int = 0) -> Nest:
    reduction = (Axis(COLUMN, sympy.Integer(reduced)),) if reduced else ()
    return Nest("n", (Axis(ROW, sympy.Integer(extent)),), reduction, body.body())


def _gather(rows: int = 5) -> Kernel:
    """Return arg2[i] = arg0[arg1[i]] where negative indices count from the end."""
    body = BodyBuilder()
    index = body.load("arg1", DType.INT64, (ROW,))
    wrapped = body.compute("add", index, body.constant(rows, DType.INT64))
    negative = body.compute("lt", index, body.constant(0, DType.INT64))
    place = body.bounds_check(body.compute("where", negative, wrapped, index), sympy.Integer(rows))
    body.store("arg2", (ROW,), body.load("arg0", DType.FLOAT32, (place,)))
    parameters = (
        Parameter(vector("arg0", rows), Access.READ),
        Parameter(vector("arg1", 8, DType.INT64), Access.READ),
        Parameter(vector("arg2", 8), Access.WRITE),
    )
    return Kernel("gather", _nest(body), parameters)


def _own(kernel: Kernel) -> tuple[Memory, ...]:
    return memories(schedule_of(kernel), kernel, {})


def test_c34_indices_are_in_range() -> None:
    kernel = _gather(5)
    assert index_limits(kernel.nest) == {"arg1": 5}
    table, index, output = _own(kernel)
    assert (table.fill, index.fill, output.fill) == (Fill.NORMAL, Fill.UNIFORM, Fill.POISON)
    values = make(Memory(DType.INT64, 4000, Fill.UNIFORM, index.low, index.high), 1).view(np.int64)
    assert set(values.tolist()) == set(range(5))
    assert expected_results(kernel, (table, index, output)) is not None


GATHER = (
    "const long* index = (const long*)args[1]; float* out = (float*)args[2];"
    "for (int i = 0; i < 8; ++i) { if (index[i] < 0 || index[i] >= 5) return 1; out[i] = x[index[i]]; } return 0;"
)


@pytest.mark.toolchain
def test_c34_tuning_a_gather_faults_nothing(tmp_path: Path) -> None:

    kernel = _gather(5)
    sources = []
    for label in ("first", "second"):
        source = source_of(kernel, label, GATHER)
        launch = Launch(source.launches[0].entry, (BufferArgument(0), BufferArgument(1), BufferArgument(2)))
        sources.append(replace(source, launches=(launch,)))
    selection = choose(*built(kernel, sources), target_of(), options_in(tmp_path))
    assert selection.rejected["gather"] == ()
    assert len(selection.timings["gather"]) == 2


@pytest.mark.parametrize("dtype", list(DType))
def test_every_dtype_has_values(dtype: DType) -> None:
    fill = Fill.NORMAL if dtype.is_float else Fill.UNIFORM
    memory = Memory(dtype, 1000, fill, 1, 8)
    data = make(memory, 3)
    assert data.nbytes == memory.nbytes
    assert np.array_equal(data, make(memory, 3))
    assert not np.array_equal(data, make(memory, 4))
    assert len(set(data.reshape(1000, -1).view(f"V{dtype.itemsize}").ravel().tolist())) >= 2
    if dtype is DType.BOOL:
        assert set(data.tolist()) == {0, 1}


def test_small_integers_fit_small_types_and_divide() -> None:
    body = BodyBuilder()
    one = body.load("arg0", DType.INT8, (ROW,))
    body.store("arg1", (ROW,), body.compute("floordiv", one, one))
    parameters = tuple(
        Parameter(vector(name, 8, DType.INT8), access)
        for name, access in (("arg0", Access.READ), ("arg1", Access.WRITE))
    )
    kernel = Kernel("k", _nest(body), parameters)
    assert make(_own(kernel)[0], 0).min() >= 1


def test_constants_have_the_bytes_of_the_first_use() -> None:
    kernel = plus_one(4)
    constant = Kernel(
        kernel.name,
        kernel.nest,
        (Parameter(kernel.parameters[0].buffer, Access.READ, constant=True), kernel.parameters[1]),
    )
    data = np.arange(4, dtype=np.float32).view(np.uint8)
    program = Program({}, (), (), (), {"w": ConstantData("w", data)})
    steps = (Step(kernel.name, ("w", "t0")), Step(kernel.name, ("other", "t1")))
    schedule = Schedule(program, {kernel.name: constant}, steps, {}, sympy.Integer(0))
    memory, _ = memories(schedule, constant, program.constants)
    assert make(memory, 0).tobytes() == data.tobytes()
    assert not memory.written


def test_a_strided_memory_spans_its_last_element_and_an_empty_one_nothing() -> None:
    strided = Buffer("arg0", DType.FLOAT32, (sympy.Integer(3), sympy.Integer(2)), (sympy.Integer(10), sympy.Integer(1)),
                     Role.INPUT)  # fmt: skip
    empty = vector("arg1", 0)
    kernel = Kernel("k", plus_one().nest, (Parameter(strided, Access.READ), Parameter(empty, Access.WRITE)))
    first, second = _own(kernel)
    assert (first.elements, second.elements) == (22, 0)
    assert make(second, 1).nbytes == 0


def test_a_dynamic_size_is_refused() -> None:
    dynamic = Buffer("arg0", DType.FLOAT32, (size_symbol("s0"),), (sympy.Integer(1),), Role.INPUT)
    kernel = Kernel("k", plus_one().nest, (Parameter(dynamic, Access.READ),))
    with pytest.raises(DynamicShapeError, match="arg0"):
        _own(kernel)


def test_large_memories_repeat_their_values() -> None:
    values = make(Memory(DType.FLOAT32, (1 << 20) + 5, Fill.NORMAL), 0).view(np.float32)
    assert np.array_equal(values[-5:], values[:5])
    assert abs(float(values.mean())) < 0.01


def test_the_interpreter_gives_the_right_bytes_of_small_kernels_only() -> None:
    kernel = plus_one(16)
    own = _own(kernel)
    results = expected_results(kernel, own)
    assert results is not None
    assert np.array_equal(np.frombuffer(results[0], np.float32), make(own[0], 0).view(np.float32) + 1)
    large = plus_one(1 << 17)
    assert expected_results(large, _own(large)) is None


def _agree(dtype: DType, got: np.ndarray, expected: np.ndarray, accuracy: Accuracy | None = None) -> str:
    memory = Memory(dtype, expected.size, Fill.POISON, written=True, accuracy=accuracy)
    x, y = got.view(np.uint8), expected.view(np.uint8)
    complaint = disagreement(memory, x, y)
    assert differences([standard(memory, y)], [x]) == complaint
    return complaint


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("elements", [1, 4097, (1 << 20) + 3])
def test_one_pass_over_memory_finds_what_the_definition_finds(dtype: DType, elements: int) -> None:
    generator = np.random.default_rng(elements)
    size = dtype.itemsize
    expected = generator.integers(0, 2 if dtype is DType.BOOL else 256, elements * size).astype(np.uint8)
    got = expected.copy()
    for place in generator.integers(0, elements, 9).tolist():
        got[place * size : (place + 1) * size] = generator.integers(0, 2 if dtype is DType.BOOL else 256, size)
    near = got.copy()
    near[::size] ^= (generator.random(elements) < 0.01).astype(np.uint8)
    for accuracy in (None, Accuracy(DType.FLOAT32), Accuracy(DType.BFLOAT16, 2.0)) if dtype.is_float else (None,):
        memory = Memory(dtype, elements, Fill.POISON, written=True, accuracy=accuracy)
        judge = standard(memory, expected)
        for result in (expected.copy(), got, near, np.full_like(expected, 0xFF)):
            assert differences([judge], [result]) == disagreement(memory, result, expected)


def test_c35_results_agree_within_the_accuracy_of_their_arithmetic() -> None:
    expected = np.array([1.0, -2.0, 0.0, np.nan, np.inf, 100.0], np.float32)
    near = expected * np.float32(1 + 5e-5) + np.float32(1e-5)
    far = expected * np.float32(1.01)
    single, half = Accuracy(DType.FLOAT32), Accuracy(DType.BFLOAT16)
    assert _agree(DType.FLOAT32, expected.copy(), expected) == ""
    assert _agree(DType.FLOAT32, near, expected, single) == ""
    assert _agree(DType.FLOAT32, near, expected) != ""
    assert _agree(DType.FLOAT32, far, expected, single).startswith("wrong result: 3 of 6")
    assert _agree(DType.FLOAT32, far, expected, half) == ""
    for place, value in ((3, 0.0), (0, np.nan), (4, 1e30), (4, -np.inf)):
        wrong = expected.copy()
        wrong[place] = value
        assert _agree(DType.FLOAT32, wrong, expected, half).startswith("wrong result: 1 of 6")


def test_integers_agree_exactly_unless_they_come_through_a_jump() -> None:
    expected = np.arange(1000, dtype=np.int32)
    off = expected.copy()
    off[7] += 1
    assert _agree(DType.INT32, off, expected) == "wrong result: 1 of 1000 elements, first at 7: 8, expected 7"
    assert _agree(DType.INT32, off, expected, Accuracy(DType.FLOAT32, jumps=True)) == ""
    assert _agree(DType.INT32, off[:10], expected[:10], Accuracy(DType.FLOAT32, jumps=True)) != ""


def test_bfloat16_is_compared_by_value() -> None:
    bits = np.array([0x3F80, 0x4000], np.uint16)
    assert _agree(DType.BFLOAT16, bits + np.uint16(1), bits, Accuracy(DType.BFLOAT16)) == ""
    assert _agree(DType.BFLOAT16, bits + np.uint16(64), bits, Accuracy(DType.BFLOAT16)) != ""


def test_accuracy_follows_the_arithmetic() -> None:
    body = BodyBuilder()
    x = body.load("x", DType.FLOAT32, (ROW, COLUMN))
    (total,) = body.reduce("sum", x)
    (largest,) = body.reduce("maximum", x)
    body.store("total", (ROW,), total)
    body.store("largest", (ROW,), largest)
    body.store("half", (ROW,), body.cast(total, DType.FLOAT16))
    body.store("back", (ROW,), body.cast(body.cast(total, DType.FLOAT16), DType.FLOAT32))
    body.store("positive", (ROW,), body.compute("gt", total, body.constant(0.0, DType.FLOAT32)))
    body.store("copied", (ROW,), body.load("index", DType.INT64, (ROW,)))
    slack = 2.0
    assert accuracies(_nest(body, 8, 4 * 4096)) == {
        "total": Accuracy(DType.FLOAT32, slack),
        "half": Accuracy(DType.FLOAT16, slack),
        "back": Accuracy(DType.FLOAT16, slack),
        "positive": Accuracy(DType.FLOAT32, slack, jumps=True),
    }
