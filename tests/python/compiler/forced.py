"""Makes a function's library once per variant: what the choice could have been, on the very code it would have shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from mkwrap import Model, Options
from mkwrap.capture import Callee, capture
from mkwrap.codegen.wrapper import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.pytree import encode_call
from mkwrap.stages import Candidates, CapturedGraph, Source
from mkwrap.targets import resolve
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import EVERY, Built, Want, build_all
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Compiler, silent
from mkwrap.tune.recall import Recalled
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants


def candidates_of(fn: Callee, args: Sequence[object], options: Options, target: str = "cpu") -> Candidates:
    """Return the open choice of a compile."""
    return variants(fuse(lower(capture(fn, tuple(args), {}, None, RULES))), resolve(target, options))


def forcings(candidates: Candidates) -> list[dict[str, str]]:
    """Return what `Options.force` takes so that every variant of every kernel has its turn, all kernels at once."""
    labels = {name: [v.label for v in found] for name, found in candidates.variants.items()}
    most = max((len(found) for found in labels.values()), default=1)
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


@dataclass(frozen=True)
class Prepared:
    """The stages of a compile for the CPU up to the choice."""

    captured: CapturedGraph
    candidates: Candidates
    target: Target
    options: Options

    def build(self, wanted: Mapping[str, str]) -> Built:
        """Compile the wanted variant of each kernel; of kernels not named, all."""
        identity = f"{self.target.toolchain} {headers_digest()}"
        compiler = Compiler(self.target.compile, identity, self.options.jobs, Cache(self.options.cache_dir))
        return build_all(
            render(self.candidates, self.target),
            lambda name: Want((wanted[name],)) if name in wanted else EVERY,
            compiler,
            silent,
        )

    def forced(self, binaries: Built, force: dict[str, str]) -> Forced:
        """Make the library of one choice."""
        selection = tune(self.candidates, binaries, Recalled({}), self.target, replace(self.options, force=force))
        call = encode_call(self.captured.in_spec, self.captured.out_spec, self.captured.constant_args)
        description = Description(self.target.device, self.target.features, "tests", call)
        library = published(wrap(selection, description), selection.schedule.program, self.options)
        sources = {name: dispatch.only.source for name, dispatch in selection.winners.items()}
        assert {name: source.variant.label for name, source in sources.items()} == force
        return Forced(force, Model(library.path), sources)


def prepare(fn: Callee, args: Sequence[object], options: Options) -> Prepared:
    """Run the stages of a compile for the CPU up to the choice."""
    target = resolve("cpu", options)
    captured = capture(fn, tuple(args), {}, None, RULES)
    return Prepared(captured, variants(fuse(lower(captured)), target), target, options)


def forced_models(fn: Callee, args: Sequence[object], options: Options) -> Iterator[Forced]:
    """Make the library of every variant; the stages before the choice run once."""
    prepared = prepare(fn, args, options)
    binaries = prepared.build({})
    for force in forcings(prepared.candidates):
        yield prepared.forced(binaries, force)


def drawn_model(fn: Callee, args: Sequence[object], options: Options, random: Random) -> Forced:
    """Make the library of one variant of each kernel, drawn at random."""
    prepared = prepare(fn, args, options)
    force = {name: random.choice(found).label for name, found in prepared.candidates.variants.items()}
    return prepared.forced(prepared.build(force), force)


def kernels_of(model: Model) -> list[dict[str, object]]:
    """Return the kernels as the manifest describes them."""
    kernels = model.manifest["kernels"]
    assert isinstance(kernels, list)
    return kernels
