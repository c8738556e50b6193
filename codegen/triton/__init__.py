"""The Triton language: templates in order of preference."""

from __future__ import annotations

from mkwrap.codegen.template import Language
from mkwrap.codegen.triton.pointwise import PLANE, POINTWISE

LANGUAGE = Language("triton", (PLANE, POINTWISE))
