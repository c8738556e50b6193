"""Spells expressions over sizes as users write them: `(n - 1) // 2`, `n % 4`."""

from __future__ import annotations

import sympy
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from mkwrap.ir.nodes import Expr


class _Printer(StrPrinter):  # type: ignore[misc]  # sympy is untyped
    """Sympy's own spelling, with the operators of Python for what is no function there."""

    def _print_FloorDiv(self, expr: Expr) -> str:
        return self._operation(expr, "//")

    def _print_Mod(self, expr: Expr) -> str:
        return self._operation(expr, "%")

    def _operation(self, expr: Expr, operator: str) -> str:
        left, right = (self._operand(arg) for arg in expr.args)
        return f"{left} {operator} {right}"

    def _operand(self, expr: Expr) -> str:
        return str(self.parenthesize(expr, PRECEDENCE["Mul"]))

    def parenthesize(self, item: Expr, level: int, strict: bool = False) -> str:
        """Put an operand into parentheses where Python would read it otherwise; sympy takes all functions for calls."""
        text = self._print(item)
        if type(item).__name__ in ("FloorDiv", "Mod") and level >= PRECEDENCE["Add"]:
            return f"({text})"
        return str(super().parenthesize(item, level, strict=strict))


_PRINTER = _Printer()


def spelled(expr: Expr | int) -> str:
    """Spell an expression; `sizes.read_size` reads it."""
    return str(_PRINTER.doprint(sympy.sympify(expr)))
