"""Spells names, strings and comments of host code."""

from __future__ import annotations

from collections.abc import Iterable

from mkwrap.ir.dtypes import DType

_CODES = {"float": "MKW_FLOAT", "bfloat": "MKW_BFLOAT", "int": "MKW_INT", "uint": "MKW_UINT"}
_WIDTH = 100


def spell_dtype(dtype: DType) -> str:
    """Return the initialiser of an `mkw_dtype`."""
    if dtype is DType.BOOL:
        return "{MKW_BOOL, 8, 1}"
    return f"{{{_CODES[dtype.value.rstrip('0123456789')]}, {8 * dtype.itemsize}, 1}}"


def spell_shape(shape: Iterable[object]) -> str:
    """Spell a shape of the manifest for people: `rows×1024`, `(rows - 2)×1024`; without dimensions `scalar`."""
    sizes = (str(size) for size in shape)
    return "×".join(size if size.isidentifier() or size.isdecimal() else f"({size})" for size in sizes) or "scalar"


def spell_string(value: str) -> str:
    """Return a C++ string literal; control characters and `?` (trigraphs) are escaped, other UTF-8 stays as it is."""
    parts = []
    for char in value:
        if char in '"\\?':
            parts.append("\\" + char)
        elif ord(char) < 32 or ord(char) == 127:
            parts.append(f"\\{ord(char):03o}")
        else:
            parts.append(char)
    return '"' + "".join(parts) + '"'


def spell_comment(value: str, indent: int = 0) -> str:
    """Return one line of comment that ends within the page and continues nothing (no backslash at its end)."""
    text = " ".join(value.split())
    room = _WIDTH - indent - len("// ")
    if len(text) > room:
        text = text[: room - 1] + "…"
    return "// " + text.rstrip("\\")
