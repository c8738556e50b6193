"""Size expressions in C++ have the values they have in Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import sympy

from mkwrap.codegen.wrapper.sizes import Values, is_static, largest, round_up, spell_size
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.index import FloorDiv, Mod, rounded_up, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.stages import SymbolSpec
from mkwrap.toolchain.headers import include_dir

A, B, C = size_symbol("a"), size_symbol("b"), size_symbol("c")
EXPRESSIONS: tuple[Expr, ...] = (
    sympy.Integer(7),
    A,
    A + 2 * B - 3,
    A * B**3,
    FloorDiv(A - 9, 4),
    Mod(A - 9, 4),
    FloorDiv(A * B + 1, B + 2) * 64,
    sympy.Min(A, B, 5),
    sympy.Max(A - B, 2, B),
)


def test_static_sizes_are_literals() -> None:
    assert spell_size(12, {}) == spell_size(sympy.Integer(12), {}) == "12"
    assert spell_size(2**40, {}) == str(2**40)
    assert is_static(3)
    assert not is_static(A)


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_values_agree_with_python(tmp_path: Path) -> None:
    points = [(a, b) for a in (0, 1, 2, 5, 8, 13) for b in (1, 3, 4)]
    spelled = [spell_size(e, {A: "a", B: "b"}) for e in EXPRESSIONS]
    lines = [f"{{ const int64_t a = {a}, b = {b}; (void)a; (void)b; {_printed(spelled)} }}" for a, b in points]
    expected = [str(int(e.subs({A: a, B: b}))) for a, b in points for e in EXPRESSIONS]
    assert _output(lines, tmp_path) == [*expected, "wide 0"]


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_what_does_not_fit_64_bits_is_seen_and_zero_divides_nothing(tmp_path: Path) -> None:
    huge = 2**62
    for expr, value, wide in (
        (A * B, 0, True),
        (A + B * 3, 0, True),
        (A**2, 0, True),
        (A + FloorDiv(B, 2), 3 * 2**61, False),
        (FloorDiv(A, C), 0, False),
        (Mod(A, C), 0, False),
    ):
        lines = [f"const int64_t a = {huge}, b = a, c = 0; (void)b; (void)c;"]
        lines.append(_printed([spell_size(expr, {A: "a", B: "b", C: "c"})]))
        *printed, said = _output(lines, tmp_path)
        assert said == f"wide {int(wide)}", expr
        assert wide or printed == [str(value)], expr


def _printed(spelled: list[str]) -> str:
    return " ".join(f'printf("%lld\\n", (long long)({text}));' for text in spelled)


def _output(lines: list[str], folder: Path) -> list[str]:
    """Run C++ lines over `wide`; return what they print, then `wide` itself."""
    path = folder / "sizes.cpp"
    head = '#include <cstdio>\n#include "mkwrap/sizes.h"\nnamespace runtime = mkwrap::runtime;\nint main() { bool wide = false;\n'
    path.write_text(head + "\n".join(lines) + '\nprintf("wide %d\\n", wide); }\n')
    flags = ["-std=c++17", "-Wall", "-Wno-unused-variable", "-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run(["g++", *flags, "-I", str(include_dir()), str(path), "-o", str(folder / "sizes")], check=True)
    return subprocess.run([folder / "sizes"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_upper_ends() -> None:
    symbols = (SymbolSpec(A, 1, 100, "x", 0), SymbolSpec(B, 1, 10, "x", 1), SymbolSpec(C, 0, 2**63 - 1, "x", 2))
    assert largest(A * 4 + B, symbols) == 410
    assert largest(FloorDiv(A, 3), symbols) == 33
    assert largest(A + C, symbols) is None
    assert largest(A * 2**60, symbols) is None
    assert largest(FloorDiv(A, C), symbols) is None
    with pytest.raises(InternalError, match="no input binds"):
        largest(size_symbol("stranger"), symbols)


def test_upper_ends_of_sizes_that_shrink_as_a_symbol_grows() -> None:
    symbols = (SymbolSpec(A, 0, 64, "x", 0), SymbolSpec(B, 0, 64, "x", 1))
    assert largest(64 * (A - B), symbols) == 4096
    assert largest(rounded_up(4 * (A - B), 64), symbols) == 256
    assert largest(Mod(A, 64), symbols) == 63
    assert largest(sympy.Max(A - B, 1), symbols) == 64


def test_what_has_no_spelling_is_refused() -> None:
    with pytest.raises(InternalError, match="no spelling"):
        spell_size(sympy.sin(A), {A: "a"})
    with pytest.raises(InternalError, match="bound by no input"):
        spell_size(A, {})


def test_each_dynamic_expression_is_one_value() -> None:
    values = Values([SymbolSpec(A, 1, 100, "x", 0), SymbolSpec(B, 1, 10, "x", 1)])
    assert [values.spell(e) for e in (7, B, A * 4, A + B, A * 4)] == ["7", "v[1]", "v[2]", "v[3]", "v[2]"]
    writer = Writer()
    values.write(writer, 3)
    assert writer.text() == "v[3] = runtime::plus(v[0], v[1], wide);  // a + b\n"


def test_round_up() -> None:
    assert [round_up(n, 64) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
    assert [rounded_up(n, 64) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
    assert [int(rounded_up(4 * A, 64).subs({A: n})) for n in (1, 16, 17)] == [64, 64, 128]
