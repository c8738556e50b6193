"""Makes a function's library once per variant: what the choice could have been, on the very code it would have shipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mkwrap import Model, Options
from mkwrap.capture import Callee, capture
from mkwrap.codegen.wrapper import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.pytree import encode_call
from mkwrap.stages import Candidates, Source
from mkwrap.targets import resolve
from mkwrap.toolchain.build import build_all
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Compiler, silent
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants


def candidates_of(fn: Callee, args: Sequence[object], options: Options, target: str = "cpu") -> Candidates:
    """Return the open choice of a compile."""
    return variants(fuse(lower(capture(fn, tuple(args), {}, None, RULES))), resolve(target, options))


def forcings(candidates: Candidates) -> list[dict[str, str]]:
    """Return what `Options.force` takes so that every variant of every kernel has its turn, all kernels at once."""
    labels = {name: [v.label for v in found] for name, found in candidates.variants.items()}
    most = max(len(found) for found in labels.values())
    return [{name: found[k % len(found)] for name, found in labels.items()} for k in range(most)]


@dataclass(frozen=True)
class Forced:
    """A model of which every kernel's variant was forced: kernel → label, and each kernel's text."""

    force: dict[str, str]
    model: Model
    sources: dict[str, Source]

    @property
    def label(self) -> str:
        """Name the variants, for messages."""
        return ", ".join(self.force.values())


def forced_models(fn: Callee, args: Sequence[object], options: Options) -> Iterator[Forced]:
    """Run the stages of a compile for the CPU once, and those after the choice once per variant."""
    target = resolve("cpu", options)
    captured = capture(fn, tuple(args), {}, None, RULES)
    program = lower(captured)
    candidates = variants(fuse(program), target)
    compiler = Compiler(
        target.compile, f"{target.toolchain} {headers_digest()}", options.jobs, Cache(options.cache_dir)
    )
    binaries = build_all(render(candidates, target), lambda _: None, compiler, silent)
    call = encode_call(captured.in_spec, captured.out_spec, captured.constant_args)
    description = Description(target.device, target.features, "tests", call)
    for force in forcings(candidates):
        selection = tune(candidates, binaries, target, replace(options, force=force))
        library = published(wrap(selection, description), program, options)
        sources = {name: dispatch.only.source for name, dispatch in selection.winners.items()}
        assert {name: source.variant.label for name, source in sources.items()} == force
        yield Forced(force, Model(library.path), sources)


def kernels_of(model: Model) -> list[dict[str, object]]:
    """Return the kernels as the manifest describes them."""
    kernels = model.manifest["kernels"]
    assert isinstance(kernels, list)
    return kernels
