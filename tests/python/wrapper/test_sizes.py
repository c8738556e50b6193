"""Size expressions in C++ have the values they have in Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import sympy

from mkwrap.codegen.wrapper.sizes import is_static, largest, round_up, spell_size
from mkwrap.errors import InternalError
from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.stages import SymbolSpec
from mkwrap.toolchain.headers import include_dir

A, B = size_symbol("a"), size_symbol("b")
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
    assert spell_size(12) == spell_size(sympy.Integer(12)) == "12"
    assert spell_size(2**40) == str(2**40)
    assert is_static(3)
    assert not is_static(A)


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_values_agree_with_python(tmp_path: Path) -> None:
    points = [(a, b) for a in (1, 2, 5, 8, 13) for b in (1, 3, 4)]
    lines = [
        f"{{ constexpr int64_t n_a = {a}, n_b = {b}; (void)n_a; (void)n_b; static_assert({spell_size(e)} == "
        f"{int(e.subs({A: a, B: b}))}); }}"
        for e in EXPRESSIONS
        for a, b in points
    ]
    path = tmp_path / "sizes.cpp"
    head = '#include "mkwrap/sizes.h"\nnamespace runtime = mkwrap::runtime;\nint main() {\n'
    path.write_text(head + "\n".join(lines) + "\n}\n")
    command = ["g++", "-std=c++17", "-fsyntax-only", "-Wall", "-I", str(include_dir()), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_upper_ends() -> None:
    symbols = (SymbolSpec(A, 1, 100, "x", 0), SymbolSpec(B, 1, 10, "x", 1))
    assert largest(A * 4 + B, symbols) == 410
    assert largest(FloorDiv(A, 3), symbols) == 33
    with pytest.raises(InternalError, match="no input binds"):
        largest(size_symbol("stranger"), symbols)


def test_what_has_no_spelling_is_refused() -> None:
    with pytest.raises(InternalError, match="no spelling"):
        spell_size(sympy.sin(A))
    with pytest.raises(InternalError, match="no identifier"):
        spell_size(size_symbol("a; evil()"))


def test_round_up() -> None:
    assert [round_up(n, 64) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
