"""What capture takes for `dynamic_shapes`, what it makes of sizes, and how it refuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import sympy
import torch
from torch.export import Dim

from mkwrap.capture import Callee, capture
from mkwrap.errors import DynamicShapeError, UnsupportedOpError
from mkwrap.lower import RULES
from mkwrap.stages import CapturedGraph
from tests.python.dynamic.everysize import OutOfRangeError, dynamic

BATCH = Dim("batch", max=64)
SEQ = Dim("seq", min=2, max=512)
HERE = "test_capture.py"


def captured(
    fn: Callee, args: tuple[object, ...], dynamic_shapes: object, kwargs: Mapping[str, object] | None = None
) -> CapturedGraph:
    return capture(fn, args, kwargs or {}, dynamic_shapes, RULES)


def shapes(graph: CapturedGraph) -> list[str]:
    return [str(list(spec.shape)) for spec in graph.inputs]


def ranges(graph: CapturedGraph) -> dict[str, tuple[int, int]]:
    return {spec.symbol.name: (spec.low, spec.high) for spec in graph.symbols}


def x34() -> torch.Tensor:
    return torch.randn(3, 4)


@dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor


def added(
    x: torch.Tensor, *rest: torch.Tensor, scale: torch.Tensor | None = None, **more: torch.Tensor
) -> torch.Tensor:
    total = x if scale is None else x * scale
    for other in (*rest, *more.values()):
        total = total + other
    return total


def first_of(d: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    return d["a"][0] + d["a"][1]


def both(pair: Pair) -> torch.Tensor:
    return pair.left + pair.right


B = {0: BATCH}
AUTO = {0: Dim.AUTO}


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "dynamic_shapes"),
    [
        (added, (x34(), x34()), {}, {"x": B, "rest": (B,)}),
        (added, (x34(), x34()), {}, (B, (B,))),
        (added, (x34(),), {"scale": x34()}, {"x": B, "scale": B}),
        (added, (x34(),), {"y": x34()}, {"x": B, "more": {"y": B}}),
        (added, (x34(),), {"y": x34()}, {"x": [BATCH, None], "y": (BATCH, Dim.STATIC)}),
        (added, (x34(), x34()), {}, {"x": (BATCH, 4), "rest": [B]}),
        (first_of, ({"a": [x34(), x34()], "b": [x34()]},), {}, {"d": {"a": [B, B]}}),
        (both, (Pair(x34(), x34()),), {}, {"pair": Pair(B, B)}),  # type: ignore[arg-type]
        (both, (Pair(x34(), x34()),), {}, ([B, B],)),
        (torch.add, (x34(), x34()), {}, (B, B)),
    ],
)
def test_the_structure_follows_parameters_and_arguments(
    fn: Callee, args: tuple[object, ...], kwargs: Mapping[str, object], dynamic_shapes: object
) -> None:
    graph = captured(fn, args, dynamic_shapes, kwargs)
    assert shapes(graph)[:2] == ["[batch, 4]", "[batch, 4]"]
    assert ranges(graph) == {"batch": (0, 64)}


@pytest.mark.parametrize(
    ("dynamic_shapes", "message"),
    [
        ({"y": B}, "names y; the arguments of this call are x"),
        ((B, None), "2 entries for 1 arguments"),
        ({"x": (BATCH,)}, r"args\[0\] has 1 entries, the tensor 2 dimensions"),
        ({"x": {2: BATCH}}, r"args\[0\] names dimension 2; there are 0 … 1"),
        ({"x": {-1: BATCH}}, r"args\[0\] names dimension -1; there are 0 … 1"),
        ({0: BATCH}, r"names 0; the arguments of this call are x; dimensions go below their argument: {'x': {0: …}}"),
        ({"x": {0: "batch"}}, r"args\[0\].shape\[0\]: 'batch' is no dimension"),
        ({"x": {0: True}}, r"args\[0\].shape\[0\]: True is no dimension"),
        ({"x": {0: Dim("n", min=1.5, max=9)}}, r"args\[0\].shape\[0\]: the Dim 'n' has the bound 1.5; a size is an"),  # type: ignore[arg-type]
        ({"x": {0: Dim.AUTO(min=5, max=9)}}, r"args\[0\].shape\[0\] is 3 in the example, but must be in 5 … 9"),
        (
            {"x": {0: BATCH, 1: BATCH}},
            r"batch is 3 at args\[0\].shape\[0\] in the example, and 4 at args\[0\].shape\[1\]",
        ),
        ({"x": {0: 5}}, r"args\[0\].shape\[0\] is 3 in the example, but dynamic_shapes says it is always 5"),
        ({"x": {0: Dim("n", min=4)}}, r"args\[0\].shape\[0\] is 3 in the example, but must be n, with n at least 4"),
        ({"x": {0: 2 * BATCH}}, r"is 3 in the example, but must be 2\*batch, with batch in 0 … 64"),
        ({"x": {0: BATCH, 1: Dim("batch", max=9)}}, "two Dims are called 'batch'"),
        ({"x": {0: Dim("p0")}}, "'p0', which names something else"),
        ({"x": {0: Dim("lambda")}}, "'lambda', which names something else"),
        (7, "dynamic_shapes is a int"),
    ],
)
def test_a_wrong_structure_is_named(dynamic_shapes: object, message: str) -> None:
    with pytest.raises(DynamicShapeError, match=message):
        captured(lambda x: x + 1, (x34(),), dynamic_shapes)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "dynamic_shapes", "message"),
    [
        (first_of, ({"a": [x34(), x34()]},), {}, {"d": {"b": [B, B]}}, r"args\[0\] names b; there is a"),
        (
            first_of,
            ({"a": [x34(), x34()]},),
            {},
            {"d": 7},
            r"args\[0\] must be a dict like the argument, with a, got 7",
        ),
        (first_of, ({"a": [x34(), x34()]},), {}, {"d": {"a": [B]}}, r"args\[0\]\['a'\] must be a tuple of 2"),
        (both, (Pair(x34(), x34()),), {}, {"pair": {"lefd": B}}, r"args\[0\] names lefd; there is left, right"),
        (added, (x34(),), {"y": x34()}, {"x": B, "more": {"z": B}}, r"dynamic_shapes\['more'\] names z; there is y"),
        (added, (x34(),), {"y": x34()}, {"x": B, "more": [B]}, r"dynamic_shapes\['more'\] must be a dict"),
    ],
)
def test_a_misspelt_name_below_the_top_is_told(
    fn: Callee, args: tuple[object, ...], kwargs: Mapping[str, object], dynamic_shapes: object, message: str
) -> None:
    with pytest.raises(DynamicShapeError, match=message):
        captured(fn, args, dynamic_shapes, kwargs)


def test_a_number_has_no_dimensions() -> None:
    with pytest.raises(DynamicShapeError, match=r"args\[1\] is no tensor"):
        captured(lambda x, k: x + k, (x34(), 2), {"x": None, "k": BATCH})


def test_c23_derived_dims_are_expressions_of_their_root() -> None:
    compiled = dynamic(lambda x, y: (x + 1, y * 2), (x34(), torch.randn(7, 4)), (B, {0: 2 * BATCH + 1}))
    assert shapes(compiled.captured) == ["[batch, 4]", "[2*batch + 1, 4]"]
    compiled.check(torch.randn(5, 4), torch.randn(11, 4))
    with pytest.raises(OutOfRangeError, match=r"not \(2\*batch \+ 1, 4\)"):
        compiled.run(torch.randn(5, 4), torch.randn(12, 4))


def test_c23_a_derived_dim_alone_binds_its_root() -> None:
    graph = captured(lambda y: y[1:].reshape(2, -1), (torch.randn(7, 4),), {"y": {0: 2 * BATCH + 1}})
    (spec,) = graph.symbols
    assert (spec.symbol.name, spec.scale, spec.offset, spec.low, spec.high) == ("batch", 2, 1, 0, 64)


def test_what_tracing_finds_of_an_undeclared_dim_is_an_expression() -> None:
    graph = captured(lambda x, y: torch.cat([x, x]) + y, (x34(), torch.randn(6, 4)), (B, {0: Dim.AUTO}))
    assert shapes(graph) == ["[batch, 4]", "[2*batch, 4]"]


@pytest.mark.parametrize("low", [0, 1, 2, 5])
def test_c23_a_dim_that_torch_writes_by_one_derived_from_it_keeps_its_name(low: int) -> None:
    """Adding x[1:] and y makes torch write x's rows as y's and one more, of which the derived dimension tells the name."""
    n = Dim("n", min=low, max=16)
    for at in (slice(1, None), slice(-1)):
        compiled = dynamic(lambda x, y, at=at: x[at] + y, (torch.randn(9, 4), torch.randn(8, 4)), ({0: n}, {0: n - 1}))
        assert shapes(compiled.captured) == ["[n, 4]", "[n - 1, 4]"]
        assert ranges(compiled.captured) == {"n": (max(low, 1), 16)}
        for rows in (max(low, 1), 7, 16):
            compiled.check(torch.randn(rows, 4), torch.randn(rows - 1, 4))
        with pytest.raises(OutOfRangeError, match=r"not \(n - 1, 4\)"):
            compiled.run(torch.randn(9, 4), torch.randn(9, 4))


@pytest.mark.parametrize(("times", "rows"), [(1, 4), (2, 8)])
def test_a_dim_that_torch_writes_by_an_undeclared_one_keeps_its_name(times: int, rows: int) -> None:
    graph = captured(
        lambda x, y: x + torch.cat([y] * times), (torch.randn(rows, 4), torch.randn(4, 4)), ({0: times * BATCH}, AUTO)
    )
    assert shapes(graph) == [f"[{times * sympy.Symbol('batch')}, 4]", "[batch, 4]"]


@pytest.mark.parametrize(
    ("declared", "other", "message"),
    [
        (
            {0: BATCH},
            {0: Dim.AUTO},
            r"needs it to be 2\*s0 .*; declare args\[1\].shape\[0\] by a Dim called s0, and this so",
        ),
        ({0: BATCH}, {0: SEQ}, r"needs it to be 2\*seq .*; declare it so: one Dim serves any number"),
    ],
)
def test_a_dim_that_has_to_be_derived_is_told_how(declared: object, other: object, message: str) -> None:
    with pytest.raises(DynamicShapeError, match=message):
        captured(lambda x, y: torch.cat([y, y]) + x, (torch.randn(6, 4), x34()), (declared, other))


def test_undeclared_sizes_are_numbered_in_order() -> None:
    auto = {0: Dim.AUTO, 1: Dim.AUTO(min=2, max=9)}
    graph = captured(lambda x, y: x.sum() + y, (x34(), x34()), (auto, {0: BATCH, 1: Dim.AUTO}))
    assert shapes(graph) == ["[s0, s1]", "[batch, s2]"]
    assert ranges(graph)["s1"] == (2, 9)


@pytest.mark.parametrize("declared", [BATCH, Dim.DYNAMIC])
def test_a_declared_dim_that_becomes_a_constant_is_refused(declared: object, capfd: pytest.CaptureFixture[str]) -> None:
    def unrolled(x: torch.Tensor) -> torch.Tensor:
        for k in range(x.shape[0]):
            x = x + k
        return x

    with pytest.raises(DynamicShapeError, match=rf"args\[0\]\.shape\[0\] .* constant 3 .*{HERE}:\d+: for k in range"):
        captured(unrolled, (x34(),), {"x": {0: declared}})
    assert (
        captured(unrolled, (x34(),), {"x": {0: Dim.AUTO, 1: BATCH}}).notes[0].startswith("args[0].shape[0] is always 3")
    )
    assert capfd.readouterr().err == ""


def test_a_tensor_without_dimensions_has_none_that_vary() -> None:
    with pytest.raises(DynamicShapeError, match=r"args\[0\] names dimension 0; the tensor has none"):
        captured(torch.exp, (torch.tensor(1.0),), ({0: BATCH},))


def test_sizes_begin_at_0_whatever_a_dim_says() -> None:
    assert ranges(captured(lambda x: x + 1, (x34(),), ({0: Dim("n", min=-5, max=9)},))) == {"n": (0, 9)}


def test_two_names_of_one_size_are_refused() -> None:
    with pytest.raises(DynamicShapeError, match=rf"declared as seq, but the program needs it to be batch .*{HERE}"):
        captured(lambda x, y: x + y, (x34(), x34()), (B, {0: SEQ}))


def test_a_bound_narrows_the_range_and_is_told() -> None:
    graph = captured(lambda x: x + 1 if x.shape[0] >= 3 else x - 1, (x34(),), (B,))
    assert ranges(graph) == {"batch": (3, 64)}
    assert "batch is at least 3" in graph.notes[0]
    assert HERE in graph.notes[0]


@pytest.mark.parametrize(
    ("branch", "relation"),
    [
        (lambda x: x.shape[0] % 4 == 0, "Mod(n, 4) == 0"),
        (lambda x: x.shape[0] != 1, "n != 1"),
        (lambda x: x.shape[0] >= 2 * x.shape[1], "2*m <= n"),
        (lambda x: x.shape[0] != x.shape[1], "m != n"),
    ],
)
def test_what_a_branch_takes_for_granted_is_a_relation(branch: object, relation: str) -> None:
    n, m = Dim("n"), Dim("m")
    graph = captured(lambda x: x + 1 if branch(x) else x, (torch.randn(8, 4),), {"x": (n, m)})  # type: ignore[operator]
    (asked,) = graph.relations
    left, right = (
        sorted((str(asked.left), str(asked.right))) if asked.op == "!=" else (str(asked.left), str(asked.right))
    )
    wanted = " ".join(reversed(relation.split())) if asked.op == "!=" and left[0].isdigit() else relation
    assert f"{left} {asked.op} {right}" == wanted
    assert HERE in asked.origin


def test_a_branch_that_the_range_decides_asks_nothing() -> None:
    graph = captured(lambda x: x + 1 if x.shape[0] <= 64 else x, (x34(),), (B,))
    assert not graph.relations
    assert not graph.notes


def test_strides_follow_the_layout_of_the_example() -> None:
    graph = captured(
        lambda a, b, c: a.sum() + b.sum() + c.sum(), (x34(), torch.randn(4, 3).t(), torch.randn(3, 8)[:, :4]), (B, B, B)
    )
    batch = graph.symbols[0].symbol
    assert [spec.strides for spec in graph.inputs] == [(4, 1), (1, batch), (8, 1)]
    assert graph.inputs[0].shape == (batch, sympy.Integer(4))


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (lambda x: x.nonzero(), UnsupportedOpError, "depends on the values of tensors"),
        (lambda x: x * x.sum().item(), UnsupportedOpError, "depends on the values of tensors"),
        (lambda x: torch.zeros(int(x.sum().item())), DynamicShapeError, "depends on the values of tensors"),
        (lambda x: x + 1 if x.sum() > 0 else x, DynamicShapeError, "depends on the values of tensors"),
        (
            lambda x: torch.cond(x.shape[0] > 4, torch.sin, torch.cos, (x,)),
            UnsupportedOpError,
            "a branch taken at run time",
        ),
        (
            lambda x: (f"{x.shape[0]}", x + 1),
            DynamicShapeError,
            "the result holds the text .*, made of the size batch ",
        ),
        (
            lambda x: {"n": [f"rows{2 * x.shape[0]}0"], "y": x},
            DynamicShapeError,
            "text 'rows.*0', made of the size batch ",
        ),
        (lambda x: (x, {"n": {f"{x.shape}": x}}), DynamicShapeError, r"text 'torch.Size\(.*, made of the size batch "),
        (lambda x: defaultdict(list, {f"{x.shape[0]}": x}), DynamicShapeError, "made of the size batch "),
        (
            lambda x: (str(x.sum().item()), x),
            DynamicShapeError,
            "made of a number that depends on the values of tensors",
        ),
        (lambda x: (x + 1, x.shape[0]), DynamicShapeError, "the result holds batch, a number made of sizes"),
    ],
)
def test_what_no_size_tells_is_refused_in_one_message(
    fn: Callee, error: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=message):
        captured(fn, (torch.ones(3, 4),), (B,))
    assert "def forward" not in capfd.readouterr().err


def test_a_text_made_of_the_values_of_static_tensors_is_refused() -> None:
    with pytest.raises(DynamicShapeError, match="made of a number that depends on the values of tensors"):
        captured(lambda x: (str(x.sum().item()), x), (x34(),), None)


def test_texts_that_are_not_made_of_sizes_are_results() -> None:
    graph = captured(
        lambda x, name: (name, {"rows": x}), (x34(), "s0 s1 u0 " + " ".join(f"s{k}" for k in range(100))), (B, None)
    )
    assert graph.graph_module.graph.output_node().args[0][0].startswith("s0 s1")  # type: ignore[index,union-attr]


@pytest.mark.parametrize("rows", [0, 1])
def test_an_example_of_size_0_or_1_stays_dynamic(rows: int) -> None:
    compiled = dynamic(lambda x: x.sum(-1, keepdim=True) + x, (torch.randn(rows, 1),), ({0: BATCH, 1: Dim.AUTO},))
    for shape in ((5, 4), (1, 4), (0, 4), (3, 1)):
        compiled.check(torch.randn(shape))


def test_an_unused_argument_binds_its_size() -> None:
    graph = captured(lambda _x, y: y + 1, (x34(), torch.randn(2)), (B, {0: Dim.AUTO}))
    assert [spec.input_name for spec in graph.symbols] == [spec.name for spec in graph.inputs]


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x.sum(0) + 1 if x.shape[0] == 0 else x.sum(0),
        lambda x: x.sum(0) if x.shape[0] > 0 else x.sum(0) + 1,
        lambda x: x.sum(0) + 1 if x.numel() == 0 else x.sum(0),
        lambda x: x.sum(0) / (x.shape[0] or 1),
        lambda x: x.sum(0) / max(x.shape[0], 1),
        lambda x: x.sum(0) / torch.sym_max(1, x.shape[0]),
        lambda x: x.new_zeros(max(x.shape[0], 1)),
        lambda x: x.new_zeros(min(x.shape[0], 1)),
    ],
)
def test_what_holds_from_one_on_excludes_zero_and_is_told(fn: Callee) -> None:
    compiled = dynamic(fn, (x34(),), ({0: Dim("n", min=0, max=64)},))
    assert ranges(compiled.captured) == {"n": (1, 64)}
    (note,) = compiled.captured.notes
    assert note.startswith("n is at least 1 instead of 0, as the program asks for it at ")
    assert HERE in note
    compiled.check(torch.randn(1, 4))
    compiled.check(torch.randn(5, 4))
    with pytest.raises(OutOfRangeError, match="n is 0"):
        compiled.run(torch.randn(0, 4))
