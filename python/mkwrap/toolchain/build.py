"""The build stage: rendered variants to binaries or rejections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from mkwrap.stages import Binary, Pruned, Rejected, Source
from mkwrap.toolchain.pool import Advance, Compiler, build

Rendered: TypeAlias = Mapping[str, Sequence[Source | Rejected]]
Built: TypeAlias = Mapping[str, Sequence[Binary | Rejected]]


@dataclass(frozen=True)
class Want:
    """Which variants of a kernel are built: those of these labels; of none of them the first that builds; None: all."""

    labels: tuple[str, ...] | None = ()
    spare: bool = False
    """Build all where one of the labels is rejected: others stand in for it."""


FIRST = Want()
EVERY = Want(None)
Wanted: TypeAlias = Callable[[str], Want]
"""From a kernel's name to what is built of it."""


def build_all(
    sources: Rendered,
    wanted: Wanted,
    compiler: Compiler,
    advance: Advance,
    recorded: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType({}),
) -> Built:
    """Compile what the choice needs: per kernel, results in the order of its variants.

    A kernel that nobody will measure needs one binary; its further variants are built only where the first are rejected.
    `recorded` has, by kernel and label, the digests that the images of wanted variants must have by an earlier choice: where
    they differ, that choice was another, and all variants are built. A pruned variant is built once all its rivals are
    rejected.
    """
    chosen = {name: _chosen(written, wanted(name)) for name, written in sources.items()}
    built: dict[str, tuple[Binary | Rejected, ...]] = dict.fromkeys(sources, ())
    todo = {name: written[:1] if wanted(name) == FIRST else written for name, written in chosen.items()}
    while any(todo.values()):
        for name, results in _build(todo, compiler, advance).items():
            built[name] += results
        todo = {
            name: written[len(built[name]) : len(built[name]) + 1]
            for name, written in chosen.items()
            if not any(isinstance(result, Binary) for result in built[name])
        }
    short = [name for name in sources if wanted(name).spare and any(isinstance(r, Rejected) for r in built[name])]
    short += [name for name, images in recorded.items() if not _has(built[name], images)]
    changed = {name: sources[name] for name in short}
    if changed:
        built = {**built, **_build(changed, compiler, advance)}
    freed = {name: entries for name, results in built.items() if (entries := _freed(results))}
    return {**built, **_build(freed, compiler, advance)} if freed else built


def _freed(results: Sequence[Binary | Rejected]) -> tuple[Source | Binary | Rejected, ...]:
    """Return results with the sources of pruned variants whose rivals were all rejected; nothing where there are none."""
    out = {result.variant for result in results if isinstance(result, Rejected)}
    free = [result for result in results if isinstance(result, Pruned) and out.issuperset(result.rivals)]
    return tuple(r.source if isinstance(r, Pruned) and r in free else r for r in results) if free else ()


def _has(built: Sequence[Binary | Rejected], digests: Mapping[str, tuple[str, ...]]) -> bool:
    found = {b.source.variant.label: tuple(image.digest for image in b.images) for b in built if isinstance(b, Binary)}
    return all(found.get(label) == images for label, images in digests.items())


def _chosen(written: Sequence[Source | Rejected], want: Want) -> Sequence[Source | Rejected]:
    if not want.labels:
        return written
    return [item for item in written if item.variant.label in want.labels] or written


def _build(
    sources: Mapping[str, Sequence[Source | Binary | Rejected]], compiler: Compiler, advance: Advance
) -> Mapping[str, tuple[Binary | Rejected, ...]]:
    flat = [source for written in sources.values() for source in written if isinstance(source, Source)]
    results = iter(build(flat, compiler, advance))
    return {
        name: tuple(next(results) if isinstance(item, Source) else item for item in written)
        for name, written in sources.items()
    }
