"""The build stage: every rendered variant to a binary or a rejection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mkwrap.options import Options
from mkwrap.stages import Binary, Rejected, Source
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.pool import Advance, Compile, Compiler, build

Rendered = Mapping[str, Sequence[Source | Rejected]]
Built = Mapping[str, Sequence[Binary | Rejected]]


def build_all(
    sources: Rendered, compile_one: Compile, identity: str, options: Options, cache: Cache, advance: Advance
) -> Built:
    """Compile all kernels' variants over `options.jobs`; per kernel, results stand where the sources stood.

    `compile_one` turns one source into a binary; `identity` and mkwrap's headers decide its bytes beside the text.
    """
    flat = [source for written in sources.values() for source in written if isinstance(source, Source)]
    compiler = Compiler(compile_one, f"{identity} {headers_digest()}", options.jobs, cache)
    results = iter(build(flat, compiler, advance))
    return {
        name: tuple(next(results) if isinstance(source, Source) else source for source in written)
        for name, written in sources.items()
    }
