"""THE SPINE: the only place that knows the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.utils._pytree as pytree

from mkwrap.capture import Callee, capture
from mkwrap.codegen.wrapper.host import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.errors import CaptureError, TargetError
from mkwrap.examples import reader
from mkwrap.fuse import fuse
from mkwrap.journal import Journal
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.model import Compilation, Model
from mkwrap.options import Options
from mkwrap.progress import shown
from mkwrap.pytree import encode_call
from mkwrap.targets import resolve
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import Wanted, build_all
from mkwrap.toolchain.cache import Cache, package_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Compiler
from mkwrap.tune.cost import hopeful
from mkwrap.tune.early import Means, measured, started_early
from mkwrap.tune.recall import Recalled, devices_of, recall, versions_of
from mkwrap.tune.record_file import read_record
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants


def compile(
    fn: Callee,
    example_inputs: Sequence[object],
    *,
    example_kwargs: Mapping[str, object] | None = None,
    dynamic_shapes: object = None,
    target: str | None = None,
    options: Options | None = None,
) -> Model:
    """Compile `fn(*example_inputs, **example_kwargs)` into one shared library and load it.

    `fn` is a function or an nn.Module; its parameters become part of the library. Shapes, strides, dtypes and alignment
    of the examples are what every call is checked against; the examples themselves are not changed. `target` is where the
    library runs: "cpu" (this machine), "cpu:x86-64-v3", "cuda", "cuda:sm_90"; None means where the inputs live.
    The library is kept in the cache; `Model.save` copies it out.

    Raises `UserError` for what the program or the call must change (`UnsupportedOpError`, `CaptureError`, …),
    `ToolchainError` for compilers and drivers, `InternalError` for defects of mkwrap.
    """
    settings = options if options is not None else Options()
    args, kwargs = _arguments(example_inputs), dict(example_kwargs or {})
    record = read_record(settings.tuning) if settings.tuning is not None else ()
    chosen = resolve(target if target is not None else _home_of(args, kwargs), settings, devices_of(record))
    cache = Cache(settings.cache_dir)
    journal = Journal(settings.dump_dir)
    stage = journal.stage
    with shown(settings.progress) as advance, started_early(chosen, settings) as early:
        identity = f"{chosen.toolchain} {headers_digest()}"
        compiler = Compiler(chosen.compile, identity, settings.jobs, cache, early.children)
        captured = stage("capture", lambda: capture(fn, args, kwargs, dynamic_shapes, RULES))
        program = stage("lower", lambda: lower(captured))
        schedule = stage("fuse", lambda: fuse(program))
        candidates = stage("variants", lambda: variants(schedule, chosen, settings.force))
        written = stage("render", lambda: render(candidates, chosen))
        sources = hopeful(written, schedule, chosen.device, settings.force)
        recalled = stage("recall", lambda: recall(candidates, sources, chosen, settings, record, cache))
        wanted = _wanted(chosen, settings, recalled)
        binaries = stage("build", lambda: build_all(sources, wanted, compiler, advance, recalled.images))
        means = Means(cache, advance, early.referee, reader(captured.samples))
        selection = stage("tune", lambda: tune(candidates, binaries, recalled, chosen, settings, means))
        call = encode_call(captured.in_spec, captured.out_spec, captured.constant_args)
        description = Description(
            chosen.device, chosen.features, package_version(), call, versions=(versions_of(chosen),)
        )
        host = stage("wrap", lambda: wrap(selection, description))
        library = stage("link", lambda: published(host, schedule.program, settings))
        model = stage("load", lambda: Model(library.path))
    model.compilation = Compilation(journal.seconds, selection.provenance)
    return model


def _wanted(target: Target, options: Options, recalled: Recalled) -> Wanted:
    """Say which variants the choice needs: the forced, the recorded, all where it will be measured, else the first."""
    rest = None if measured(target, options) else ""
    return lambda kernel: options.force.get(kernel) or recalled.label(kernel) or rest


def _arguments(example_inputs: Sequence[object]) -> tuple[object, ...]:
    if not isinstance(example_inputs, tuple | list):
        raise CaptureError(
            f"example_inputs must be a tuple of the arguments, got a {type(example_inputs).__name__}; write (x,) for one"
        )
    return tuple(example_inputs)


def _home_of(args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Return the target of the devices the inputs live on."""
    kinds = {leaf.device.type for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
    if not kinds:
        return "cpu"
    if len(kinds) > 1 or not kinds <= {"cpu", "cuda"}:
        found = " and ".join(sorted(kinds))
        raise TargetError(f"the inputs live on {found}; put them all on the CPU or all on one GPU, or name a target")
    return kinds.pop()
