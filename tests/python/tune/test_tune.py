"""The tune stage on hand-made candidates: right ones race, others are dropped with a reason, choices are kept."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.python.tune.kernels import LOOP, SLOW, built, choose, options_in, plus_one, source_of, target_of

from mkwrap.artifact import Open, OpenSelection
from mkwrap.errors import NoVariantError
from mkwrap.stages import Binary, Provenance, Rejected, Selection, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.cache import Cache
from mkwrap.tune import recall
from mkwrap.tune.match import LIMITS
from mkwrap.tune.measure import Referee

pytestmark = pytest.mark.toolchain


def _labels(selection: Selection, kernel: str = "kernel0") -> tuple[str, str]:
    return selection.winners[kernel].only.source.variant.label, selection.reasons[kernel]


def _rejections(selection: Selection) -> dict[str, str]:
    return {entry.variant.label: entry.reason for entry in selection.rejected["kernel0"]}


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after whose call a measurement is a failure."""

    def never(*_: object) -> None:
        pytest.fail("measured")

    return lambda: monkeypatch.setattr(Referee, "hold", never)


def test_the_faster_of_two_right_variants_wins(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(4096), {"slow": SLOW, "fast": LOOP})
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert _labels(selection) == ("fast", "measured")
    slow, fast = selection.timings["kernel0"]
    assert slow.median_us > 3 * fast.median_us > 0
    assert fast.runs >= 2
    assert selection.winners["kernel0"].only is binaries["kernel0"][1]


def test_c3_equal_variants_keep_the_default(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(4096), {"first": LOOP, "second": LOOP})
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert _labels(selection) in [("first", "measured"), ("first", "within noise of the default")]


BAD = {
    "segfault": ("*(volatile int*)0 = 1; return 0;", "SIGSEGV"),
    "abort": ("__builtin_trap();", "SIG"),
    "wrong": ("for (long i = 0; i < {n}; ++i) y[i] = x[i] + 1.01f; return 0;", "wrong result: 64 of 64"),
    "one element missing": (
        "for (long i = 0; i < {n} - 1; ++i) y[i] = x[i] + 1.0f; return 0;",
        "wrong result: 1 of 64",
    ),
    "one too many": ("for (long i = 0; i <= {n}; ++i) y[i] = x[i & 63] + 1.0f; return 0;", "outside its buffers"),
    "writes its input": ("((float*)x)[0] = 0.0f; " + LOOP, "SIGSEGV"),
    "fails": ("return 1;", "out of range"),
    "undefined": ("extern void nowhere(); nowhere(); return 0;", "cannot be linked"),
}


@pytest.mark.parametrize("label", BAD)
def test_c35_a_faulty_candidate_is_dropped_with_its_reason(tmp_path: Path, label: str) -> None:
    body, reason = BAD[label]
    candidates, binaries = built(plus_one(), {"first": LOOP, label: body, "last": LOOP})
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert _labels(selection)[0] in ("first", "last")
    assert list(_rejections(selection)) == [label]
    assert reason in _rejections(selection)[label]
    assert {timing.variant.label for timing in selection.timings["kernel0"]} == {"first", "last"}


def test_c35_a_faulty_default_gives_way(tmp_path: Path) -> None:
    bodies = {"crash": BAD["segfault"][0], "wrong": BAD["wrong"][0], "right": LOOP}
    selection = choose(*built(plus_one(), bodies), target_of(), options_in(tmp_path))
    assert _labels(selection) == ("right", "not measured: the other variants were rejected")
    assert list(_rejections(selection)) == ["crash", "wrong"]


def test_c35_a_large_kernel_is_checked_against_its_default(tmp_path: Path) -> None:
    bodies = {"first": LOOP, "wrong": BAD["wrong"][0], "last": LOOP}
    selection = choose(*built(plus_one(1 << 17), bodies), target_of(), options_in(tmp_path))
    assert list(_rejections(selection)) == ["wrong"]


def test_c35_a_candidate_that_hangs_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "quick", dataclasses.replace(LIMITS["quick"], hang=0.3))
    bodies = {"first": LOOP, "hang": "for (;;) { volatile int k = 0; (void)k; }", "last": LOOP}
    selection = choose(*built(plus_one(), bodies), target_of(), options_in(tmp_path))
    assert _rejections(selection) == {"hang": "the measuring process gave no answer in time"}
    assert len(selection.timings["kernel0"]) == 2


def test_c35_a_candidate_that_does_not_compile_is_reported(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"broken": "this is not C++", "right": LOOP, "slow": SLOW})
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert _labels(selection)[0] == "right"
    assert "g++ failed" in _rejections(selection)["broken"]


def test_c35_all_failing_is_an_error_naming_the_kernel(tmp_path: Path) -> None:
    bodies = {"crash": BAD["segfault"][0], "wrong": BAD["wrong"][0]}
    with pytest.raises(NoVariantError, match=r"kernel0 \(aten.add\)(.|\n)*crash(.|\n)*SIGSEGV(.|\n)*wrong result"):
        choose(*built(plus_one(), bodies), target_of(), options_in(tmp_path))
    candidates, binaries = built(plus_one(), {"a": "nonsense", "b": "more nonsense"})
    with pytest.raises(NoVariantError, match="kernel0"):
        choose(candidates, binaries, target_of(), options_in(tmp_path))


def test_c14_a_zeroed_workspace_is_zero_in_every_run(tmp_path: Path) -> None:
    kernel = plus_one()
    used = "if (((unsigned char*)args[2])[0]) return 1; ((unsigned char*)args[2])[0] = 1; " + LOOP
    zeroed = source_of(kernel, "zeroed", used, workspace_bytes=64, zero_workspace=True)
    trusting = source_of(kernel, "trusting", used, workspace_bytes=64)
    candidates, binaries = built(kernel, [source_of(kernel, "plain", LOOP), zeroed, trusting])
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert list(_rejections(selection)) == ["trusting"]
    assert len(selection.timings["kernel0"]) == 2


def test_c4_a_second_compile_measures_nothing_and_picks_the_same(
    tmp_path: Path, no_measuring: Callable[[], None]
) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP, "wrong": BAD["wrong"][0]})
    first = choose(candidates, binaries, target_of(), options_in(tmp_path), Cache(tmp_path))
    no_measuring()
    second = choose(candidates, binaries, target_of(), options_in(tmp_path), Cache(tmp_path))
    assert _labels(second) == ("fast", "measured")
    assert second.provenance == {"kernel0": Provenance.CACHE}
    assert second.winners == first.winners
    assert second.timings == first.timings
    assert second.rejected == first.rejected


_COMPILE = """
import sys
from pathlib import Path
from mkwrap.toolchain.cache import Cache
from tests.python.tune.kernels import LOOP, SLOW, built, choose, options_in, plus_one, target_of
folder = Path(sys.argv[1])
candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
selection = choose(candidates, binaries, target_of(), options_in(folder), Cache(folder))
assert "torch" not in sys.modules
print(selection.winners["kernel0"].only.source.variant.label, selection.provenance["kernel0"].name)
"""


def _compile_in_process(folder: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen([sys.executable, "-c", _COMPILE, str(folder)], stdout=subprocess.PIPE, text=True, cwd=root)


def test_c7_processes_compiling_one_kernel_into_one_cold_cache_agree(tmp_path: Path) -> None:
    processes = [_compile_in_process(tmp_path) for _ in range(2)]
    lines = [process.communicate(timeout=60)[0].strip() for process in processes]
    # The one that waited for the device finds the choice of the other.
    assert sorted(lines) == ["fast CACHE", "fast MEASURED"]
    process = _compile_in_process(tmp_path)
    assert process.communicate(timeout=60)[0].strip() == "fast CACHE"


def _on(target: Target, **changes: object) -> Target:
    return dataclasses.replace(target, device=dataclasses.replace(target.device, **changes))  # type: ignore[arg-type]


def test_c5_a_choice_from_other_circumstances_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    cache, here = Cache(tmp_path), target_of()

    def reason(target: Target = here, **fields: object) -> str:
        options = options_in(tmp_path, **fields)
        return choose(candidates, binaries, target, options, cache).provenance["kernel0"].name

    assert reason() == "MEASURED"
    assert reason() == "CACHE"
    assert reason(target=target_of(name="another device")) == "MEASURED"
    assert reason(target=dataclasses.replace(here, toolchain="g++ 99")) == "MEASURED"
    assert reason(target=_on(here, units=2)) == "MEASURED"
    assert reason(target=_on(here, driver="12.9")) == "MEASURED"
    monkeypatch.setattr(recall, "package_version", lambda: "another version")
    assert reason() == "MEASURED"
    assert reason() == "CACHE"


def test_c5_a_choice_among_other_candidates_is_measured_again(tmp_path: Path) -> None:
    cache, options = Cache(tmp_path), options_in(tmp_path)
    for bodies in (
        {"slow": SLOW, "fast": LOOP},
        {"slow": SLOW, "fast": LOOP, "faster": LOOP},
        {"slow": SLOW, "fast": "/* another text, other bytes */ long k = 1; y[0] = (float)k; " + LOOP},
    ):
        assert choose(*built(plus_one(), bodies), target_of(), options, cache).provenance["kernel0"].name == "MEASURED"
    other = built(plus_one(65), {"slow": SLOW, "fast": LOOP})
    assert choose(*other, target_of(), options, cache).provenance["kernel0"].name == "MEASURED"


def test_a_full_measurement_serves_a_quick_compile_but_not_the_other_way(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    cache = Cache(tmp_path)

    def reason(mode: str) -> str:
        return (
            choose(candidates, binaries, target_of(), options_in(tmp_path, tune=mode), cache).provenance["kernel0"].name
        )

    assert [reason("quick"), reason("quick"), reason("full"), reason("quick")] == [
        "MEASURED",
        "CACHE",
        "MEASURED",
        "CACHE",
    ]


def test_c6_a_damaged_choice_is_measured_again(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    choose(candidates, binaries, target_of(), options_in(tmp_path), Cache(tmp_path))
    for path in (tmp_path / "choice").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-5])
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path), Cache(tmp_path))
    assert _labels(selection) == ("fast", "measured")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"deterministic": True}, "not measured: deterministic"), ({"tune": "off"}, "not measured: tune is off")],
)
def test_c39_nothing_is_measured_where_nothing_may_be(
    tmp_path: Path, no_measuring: Callable[[], None], fields: dict[str, object], reason: str
) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    cache = Cache(tmp_path)
    choose(candidates, binaries, target_of(), options_in(tmp_path), cache)
    no_measuring()
    for _ in range(2):
        selection = choose(candidates, binaries, target_of(), options_in(tmp_path, **fields), cache)
        assert _labels(selection) == ("slow", reason)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("cuda", "open: no device"), ("cpu", "open: this machine lacks the target's instructions")],
)
def test_without_the_device_the_choice_stays_open(
    tmp_path: Path, no_measuring: Callable[[], None], kind: str, reason: str
) -> None:
    no_measuring()
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    selection = choose(candidates, binaries, target_of(present=False, kind=kind), options_in(tmp_path))
    assert isinstance(selection, OpenSelection)
    choice = selection.choices["kernel0"]
    assert isinstance(choice, Open)
    assert [binary.source.variant.label for binary in choice.binaries] == ["slow", "fast"]
    assert selection.reasons["kernel0"] == reason
    options = options_in(tmp_path, force={"kernel0": "fast"})
    forced = choose(candidates, binaries, target_of(present=False, kind=kind), options)
    assert _labels(forced) == ("fast", "forced")


def test_one_variant_is_not_measured(tmp_path: Path, no_measuring: Callable[[], None]) -> None:
    no_measuring()
    selection = choose(*built(plus_one(), {"only": LOOP}), target_of(), options_in(tmp_path))
    assert _labels(selection) == ("only", "not measured: there is one variant")
    selection = choose(*built(plus_one(), {"broken": "?", "only": LOOP}), target_of(), options_in(tmp_path))
    assert _labels(selection) == ("only", "not measured: the other variants were rejected")


def test_a_variant_that_was_built_alone_says_why(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    alone = {"kernel0": binaries["kernel0"][:1]}
    selection = choose(candidates, alone, target_of(), options_in(tmp_path, tune="off"))
    assert _labels(selection) == ("slow", "not measured: tune is off")


def test_a_forced_variant_wins_unmeasured(tmp_path: Path, no_measuring: Callable[[], None]) -> None:
    no_measuring()
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    for label in ("slow", "fast"):
        options = options_in(tmp_path, force={"kernel0": label})
        assert _labels(choose(candidates, binaries, target_of(), options)) == (label, "forced")


def test_forcing_a_variant_that_does_not_build_says_why(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"broken": "?", "fast": LOOP})
    with pytest.raises(NoVariantError, match=r"kernel0(.|\n)*broken(.|\n)*g\+\+ failed"):
        choose(candidates, binaries, target_of(), options_in(tmp_path, force={"kernel0": "broken"}))


def test_progress_counts_the_kernels_to_measure(tmp_path: Path) -> None:
    steps: list[tuple[object, ...]] = []
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    choose(candidates, binaries, target_of(), options_in(tmp_path), None, lambda *step: steps.append(step))
    assert steps == [("tune", 0, 1, "kernel0, 1 s left"), ("tune", 1, 1)]


def test_rejections_of_the_build_stay_in_the_report(tmp_path: Path) -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    gone: Rejected | Binary = Rejected(Variant("kernel0", "huge"), "too much shared memory")
    selection = choose(candidates, {"kernel0": (*binaries["kernel0"], gone)}, target_of(), options_in(tmp_path))
    assert _rejections(selection) == {"huge": "too much shared memory"}
