"""The choice as a compile makes it: by timings, past broken candidates, and through damaged or shared caches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.forced import candidates_of, kernels_of

import mkwrap
from mkwrap import Model, Options
from mkwrap.codegen import cpp
from mkwrap.codegen.template import Language, Template
from mkwrap.errors import NoVariantError
from mkwrap.stages import Device, Kernel, Params, Provenance, Source, Variant
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain


def softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))


def tuned(x: torch.Tensor, options: Options) -> Model:
    return mkwrap.compile(softmax, (x,), target="cpu", options=options)


def provenances(model: Model) -> list[Provenance]:
    assert model.compilation is not None
    return list(model.compilation.choices.values())


@pytest.fixture
def cold(quick: Options, tmp_path: Path) -> Options:
    """Measure, with an empty cache."""
    return replace(quick, tune="quick", cache_dir=tmp_path / "cache", threads=2)


@pytest.fixture
def given_timings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every contest end with these samples, microseconds per candidate."""

    def give(*samples: tuple[float, ...]) -> None:
        def hold(self: Referee, contest: Contest) -> Outcome:
            del self
            assert len(contest.candidates) >= len(samples)
            padded = (*samples, *[(1000.0,) * 5] * (len(contest.candidates) - len(samples)))
            return Outcome(dict(enumerate(padded)), {})

        monkeypatch.setattr(Referee, "hold", hold)

    return give


@pytest.mark.parametrize(
    ("samples", "winner", "reason"),
    [
        (((30.0,) * 9, (20.0,) * 9, (25.0,) * 9), 1, "measured"),
        (((20.0,) * 9, (20.0,) * 9, (20.0,) * 9), 0, "measured"),
        (((30.0,) * 9, (20.0,) * 9, (20.0,) * 9), 1, "measured"),
        # 1 % faster, or faster by less than the medians are known: noise.
        (((20.0,) * 9, (19.8,) * 9), 0, "within noise of the default"),
        (((20.0, 28.0, 12.0) * 3, (18.0, 26.0, 10.0) * 3), 0, "within noise of the default"),
    ],
)
def test_c3_given_timings_decide(
    samples: tuple[tuple[float, ...], ...],
    winner: int,
    reason: str,
    x: torch.Tensor,
    given_timings: Callable[..., None],
    cold: Options,
    shared_cache: Path,
) -> None:
    """Binaries may come from the shared cache; decisions may not."""
    given_timings(*samples)
    options = replace(cold, cache_dir=shared_cache, tune="full")
    for choice in shared_cache.glob("choice/*/*"):
        choice.unlink()
    (labels,) = [[v.label for v in found] for found in candidates_of(softmax, (x,), options).variants.values()]
    model = tuned(x, options)
    (kernel,) = kernels_of(model)
    assert (kernel["winner"], kernel["reason"]) == (labels[winner], reason)
    torch.testing.assert_close(model(x), softmax(x))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "garbage": lambda data: bytes((b * 7 + 13) % 256 for b in data[:5000]),
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_c6_a_damaged_cache_is_a_miss(damage: str, x: torch.Tensor, cold: Options) -> None:
    plain = replace(cold, tune="off")
    first, expected = tuned(x, cold), tuned(x, plain)(x)
    files = [path for path in cold.cache_dir.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.suffix for path in files} == {"", ".so"}
    for path in files:
        # Under a new inode: the library that is loaded keeps its bytes.
        data = DAMAGES[damage](path.read_bytes())
        path.unlink()
        path.write_bytes(data)
    assert torch.equal(tuned(x, plain)(x), expected)
    again = tuned(x, cold)
    torch.testing.assert_close(again(x), first(x))
    assert provenances(again) == [Provenance.MEASURED]
    assert provenances(tuned(x, cold)) == [Provenance.CACHE]


_COMPILE = """
import sys
from pathlib import Path
import torch
import mkwrap
from tests.python.compiler.forced import kernels_of
x = torch.randn(64, 1024)
def fn(x):
    return torch.softmax(x, -1), (x * 2).t().contiguous()
options = mkwrap.Options(tune="quick", cache_dir=Path(sys.argv[1]), jobs=1, threads=2)
model = mkwrap.compile(fn, (x,), target="cpu", options=options)
torch.testing.assert_close(model(x), fn(x))
for kernel in kernels_of(model):
    print(kernel["name"], kernel["winner"], *[launch["digest"] for launch in kernel["launches"]], sep="|", end="|")
    print(model.compilation.choices[kernel["name"]].name)
"""


def test_c7_two_processes_with_one_cold_cache_both_run_right(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _COMPILE, str(tmp_path / "cache")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)

    printed = []
    for process in [start(), start()]:
        printed.append(process.communicate(timeout=120)[0].splitlines())
        assert process.returncode == 0
    last = start()
    printed.append(last.communicate(timeout=120)[0].splitlines())
    # One of the two measured each kernel, the other and every later one found its choice: the same binaries.
    choices = [[line.rsplit("|", 1)[0] for line in lines] for lines in printed]
    assert choices[0] == choices[1] == choices[2] != []
    assert {line.rsplit("|", 1)[1] for line in printed[2]} == {"CACHE"}
    for first, second in zip(printed[0], printed[1], strict=True):
        assert [first.endswith("|CACHE"), second.endswith("|CACHE")].count(False) == 1


# ── candidates that are no good ──────────────────────────────────────────────────────────────────────────────────────────


def broken(template: Template, change: Callable[[str], str], *, every: bool = False) -> Template:
    """Return the template with text changed of its second variant, or of every one."""

    def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
        source = template.render(kernel, variant, device)
        space: tuple[Params, ...] = template.space(kernel, device)
        return replace(source, text=change(source.text)) if every or variant.params == space[1] else source

    return Template(template.name, template.space, render)


def with_changes(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], *, every: bool = False) -> None:
    templates = tuple(broken(template, change, every=every) for template in cpp.LANGUAGE.templates)
    monkeypatch.setattr(cpp, "LANGUAGE", Language("cpp", templates))


def in_body(statement: str) -> Callable[[str], str]:
    return lambda text: text.replace("int32_t failed = 0;", f"int32_t failed = 0; {statement}", 1)


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "does not compile": (in_body("this is not C++;"), "error:"),
    "faults": (in_body("__builtin_trap();"), "the measuring process"),
    "writes nothing": (in_body("return 0;"), "wrong result"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_c35_a_bad_candidate_is_dropped_with_its_reason(
    how: str, x: torch.Tensor, cold: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, reason = BROKEN[how]
    (labels,) = [[v.label for v in found] for found in candidates_of(softmax, (x,), cold).variants.values()]
    with_changes(monkeypatch, change)
    model = tuned(x, cold)
    (kernel,) = kernels_of(model)
    assert isinstance(kernel["rejected"], list)
    assert [entry["variant"] for entry in kernel["rejected"]] == [labels[1]]
    assert reason in kernel["rejected"][0]["reason"]
    assert kernel["winner"] in labels[:1] + labels[2:]
    torch.testing.assert_close(model(x), softmax(x))


def test_c35_no_candidate_left_is_an_error_that_names_the_kernel(
    x: torch.Tensor, cold: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_changes(monkeypatch, in_body("__builtin_trap();"), every=True)
    with pytest.raises(NoVariantError, match=r"every variant of kernel reduction_0 .*softmax.* was rejected") as caught:
        tuned(x, cold)
    assert str(caught.value).count("the measuring process") >= 3
