"""Tuning over points, measured for real on hand-made texts of one kernel with a dynamic size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import sympy
from tests.python.nests import axes, buffer, kernel
from tests.python.tune.kernels import compile_plain, options_in, target_of

from mkwrap.errors import NoVariantError, OptionError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, size_symbol
from mkwrap.ir.nodes import Nest, Origin
from mkwrap.options import Options
from mkwrap.stages import (
    Binary,
    BufferArgument,
    Candidates,
    Guard,
    Hints,
    Kernel,
    Launch,
    Program,
    Rejected,
    Schedule,
    Selection,
    SizeArgument,
    Source,
    Step,
    SymbolSpec,
    Variant,
)
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.pool import Compiler, build
from mkwrap.tune.early import Means
from mkwrap.tune.recall import recall
from mkwrap.tune.tuner import tune

pytestmark = pytest.mark.toolchain

N = size_symbol("n")
FAST = "for (long i = 0; i < n; ++i) y[i] = x[i] + 1.0f;"
SLOW = "for (int k = 0; k < 40; ++k) for (long i = 0; i < n; ++i) ((volatile float*)y)[i] = x[i] + 1.0f;"
# As fast as FAST is for few elements, and slow for many; the other way round.
FEW = f"if (n < 500) {{ {FAST} }} else {{ {SLOW} }}"
MANY = f"if (n >= 500) {{ {FAST} }} else {{ {SLOW} }}"
WRONG = f"{FAST} if (n > 1000) y[0] = 0.0f;"
SMALL = Guard(N, most=600)


def plus_one() -> Kernel:
    i, body = axis_symbol("i"), BodyBuilder()
    value = body.compute("add", body.load("x", DType.FLOAT32, (i,)), body.constant(1.0, DType.FLOAT32))
    body.store("y", (i,), value)
    nest = Nest("kernel0", axes((i, N)), (), body.body(), (Origin("aten.add", "model.py:3: x + 1"),))
    return kernel(nest, [buffer("x", DType.FLOAT32, (N,))], [buffer("y", DType.FLOAT32, (N,))])


def source(label: str, body: str, *guards: Guard) -> Source:
    entry = f"mkw_points_{label}"
    text = (
        f'extern "C" __attribute__((visibility("default"))) int {entry}(void* const* args, const long* sizes) {{\n'
        f"  const float* x = (const float*)args[0]; float* y = (float*)args[1]; long n = sizes[0];\n  {body}\n  return 0;\n}}\n"
    )
    launch = Launch(entry, (BufferArgument(0), BufferArgument(1), SizeArgument(N)))
    return Source(Variant("kernel0", label), "cpp", text, (launch,), guards=guards)


def tuned(sources: Sequence[Source], options: Options, points: Sequence[int] = (16, 4096)) -> Selection:
    """Build and tune as a compile does, every variant proposed at every point where its guards hold."""
    own = plus_one()
    program = Program({}, (), (), (), {}, (SymbolSpec(N, 1, 1 << 20, "x", 0),))
    schedule = Schedule(program, {"kernel0": own}, (Step("kernel0", ("x", "y")),), {}, sympy.Integer(0))
    worth = {(n,): tuple(s.variant for s in sources if all(guard.holds({N: n}) for guard in s.guards)) for n in points}
    hints = Hints({N: points[0]}, tuple({N: n} for n in points))
    candidates = Candidates(schedule, {"kernel0": tuple(s.variant for s in sources)}, {"kernel0": worth}, hints)
    binaries: Mapping[str, tuple[Binary | Rejected, ...]] = {
        "kernel0": build(sources, Compiler(compile_plain, "g++ for tests", 2))
    }
    cache, target = Cache(options.cache_dir), target_of()
    recalled = recall(candidates, {"kernel0": sources}, target, options, cache=cache)
    selection = tune(candidates, binaries, recalled, target, options, Means(cache))
    assert isinstance(selection, Selection)
    return selection


def rows(selection: Selection) -> list[tuple[int, str]]:
    return [(row.point[0], row.binary.source.variant.template) for row in selection.winners["kernel0"].rows]


def test_each_size_gets_the_variant_that_is_fastest_there_and_the_boundary_is_found(tmp_path: Path) -> None:
    options = options_in(tmp_path, tune="full")
    selection = tuned([source("few", FEW), source("many", MANY)], options)
    dispatch = selection.winners["kernel0"]
    assert dispatch.symbols == (N,)
    found = rows(selection)
    assert [name for _, name in found] == ["few", "many"]
    # The table's boundary is the geometric mean of the two points about it.
    assert 350 < (found[0][0] * found[1][0]) ** 0.5 < 700
    again = tuned([source("few", FEW), source("many", MANY)], options)
    assert (rows(again), again.points) == (found, selection.points)


def test_a_recorded_winner_that_does_not_build_this_time_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, sources = options_in(tmp_path), [source("few", FEW), source("many", MANY)]
    tuned(sources, options)

    real = build

    def killed(sources: Sequence[Source], compiler: Compiler) -> tuple[Binary | Rejected, ...]:
        whole = real(sources, compiler)
        return tuple(
            Rejected(s.variant, "the compiler was killed") if s.variant.template == "few" else b
            for s, b in zip(sources, whole, strict=True)
        )

    monkeypatch.setitem(globals(), "build", killed)
    assert tuned(sources, options).winners["kernel0"].only.source.variant.template == "many"


def test_c35_a_variant_that_is_wrong_at_one_point_runs_at_none(tmp_path: Path) -> None:
    selection = tuned([source("slow", SLOW), source("wrong", WRONG)], options_in(tmp_path))
    dispatch = selection.winners["kernel0"]
    assert [row.binary.source.variant.template for row in dispatch.rows] == ["slow"]
    assert dispatch.symbols == ()
    small, *added, large = selection.points["kernel0"]
    assert {choice.winner.template for choice in (small, *added, large)} == {"slow"}
    assert [(r.variant.template, "wrong result" in r.reason) for r in large.rejected] == [("wrong", True)]
    with pytest.raises(NoVariantError, match="wrong result"):
        tuned([source("wrong", WRONG), source("limited", FAST, SMALL)], options_in(tmp_path / "other"))


def test_where_a_guard_fails_the_next_best_runs(tmp_path: Path) -> None:
    selection = tuned([source("fast", FAST, SMALL), source("slow", SLOW)], options_in(tmp_path), (256,))
    found = [(r.point, r.binary.source.variant.template, r.handicap) for r in selection.winners["kernel0"].rows]
    assert found == [((256,), "fast", 0), ((256,), "slow", 1 << 16)]


def test_what_is_built_decides_and_what_is_not_is_told_at_the_first_point(tmp_path: Path) -> None:
    sources = [source("broken", "this is no C++;"), source("slow", SLOW), source("fast", FAST)]
    selection = tuned(sources, options_in(tmp_path))
    assert selection.winners["kernel0"].only.source.variant.template == "fast"
    first, *others = selection.points["kernel0"]
    assert [entry.variant.template for entry in first.rejected] == ["broken"]
    assert all(not choice.rejected for choice in others)


def test_a_forced_variant_that_is_right_at_no_point_is_refused(tmp_path: Path) -> None:
    forced = options_in(tmp_path, force={"kernel0": "fast"})
    with pytest.raises(OptionError, match=r"right at none of its points \(it needs n ≤ 600\); add a hint"):
        tuned([source("fast", FAST, SMALL), source("slow", SLOW)], forced, (4096,))
    selection = tuned([source("fast", FAST, SMALL), source("slow", SLOW)], forced, (256, 4096))
    assert [(c.at["n"], c.winner.template, c.reason) for c in selection.points["kernel0"]] == [
        (256, "fast", "forced"),
        (4096, "slow", "forced"),
    ]
