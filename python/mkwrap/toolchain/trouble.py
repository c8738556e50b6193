"""How trouble of the machine is told from a verdict on a text. Imports nothing: the measuring process needs it, too."""

from __future__ import annotations

LATE = "not measured: checking the variants before it took too long"
"""The reason of a variant for whose check no time was left."""

# What g++, ptxas, Triton, linkers and the system print where the same text compiles another time, and what is said here
# where a compiler, a linker or a check ran out of time.
TROUBLE = (
    "No space left on device",
    "File too large",
    "annot allocate memory",
    "out of memory",
    "Killed signal",
    "died of SIGKILL",
    " ran for more than ",
    LATE,
)
