"""Host code of a library: the C++ model around its kernels, what it embeds, and its manifest."""

from mkwrap.codegen.wrapper.host import wrap
from mkwrap.codegen.wrapper.manifest import Description

__all__ = ["Description", "wrap"]
