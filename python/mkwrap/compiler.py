"""THE SPINE: the only place that knows the order of the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mkwrap.artifact import OpenSelection
from mkwrap.capture import Callee, capture
from mkwrap.codegen.wrapper.host import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.examples import arguments, reader
from mkwrap.fuse import fuse
from mkwrap.hints import hints_of
from mkwrap.journal import Journal, Value
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.model import Compilation, Model, load_published
from mkwrap.options import Options, given_or_default
from mkwrap.progress import shown
from mkwrap.pytree import encode_call, parameter_names
from mkwrap.spaces import fitting
from mkwrap.stages import Hints, Schedule, Selection
from mkwrap.targets import resolve_all
from mkwrap.targets.home import home_of
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import build_all
from mkwrap.toolchain.cache import Cache, package_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Compiler
from mkwrap.tune.cost import hopeful
from mkwrap.tune.early import Early, Means, started_early
from mkwrap.tune.recall import devices_of, recall, versions_of
from mkwrap.tune.record import Row
from mkwrap.tune.record_file import read_record
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants


def compile(
    fn: Callee,
    example_inputs: Sequence[object],
    *,
    example_kwargs: Mapping[str, object] | None = None,
    dynamic_shapes: object = None,
    target: str | Sequence[str] | None = None,
    options: Options | None = None,
) -> Model:
    """Compile `fn(*example_inputs, **example_kwargs)` into one shared library and load it.

    `fn` is a function or an nn.Module; its parameters become part of the library. Shapes, strides, dtypes and alignment
    of the examples are what every call is checked against; the examples themselves are not changed. `target` is where the
    library runs: "cpu" (this machine), "cpu:x86-64-v3", "cuda", "cuda:sm_90", or several GPU architectures, of which a
    model takes the best that fits its device; None means where the inputs live.
    The library is kept in the cache (where that cannot be written, in a temporary folder as long as the model lives);
    `Model.save` copies it out.

    Raises `UserError` for what the program or the call must change (`UnsupportedOpError`, `CaptureError`, …),
    `ToolchainError` for compilers and drivers, `InternalError` for defects of mkwrap.
    """
    settings = given_or_default(options)
    args, kwargs = arguments(example_inputs), dict(example_kwargs or {})
    record = read_record(settings.tuning) if settings.tuning is not None else ()
    targets = resolve_all(target if target is not None else home_of(args, kwargs), settings, devices_of(record))
    cache = Cache(settings.cache_dir)
    journal = Journal(settings.dump_dir)
    stage = journal.stage
    with shown(settings.progress) as advance, started_early(targets[0], settings) as early:
        captured = stage("capture", lambda: capture(fn, args, kwargs, dynamic_shapes, RULES))
        program = stage("lower", lambda: lower(captured))
        schedule = stage("fuse", lambda: fuse(program))
        means = Means(cache, advance, early.referee, reader(captured.samples))
        choice = _Choice(settings, record, journal, early, means, hints_of(program, captured.samples, settings))
        selections = [choice.made(schedule, each, each.name if each is not targets[0] else "") for each in targets]
        call = encode_call(captured.in_spec, captured.out_spec, captured.constant_args, parameter_names(fn))
        device, *further = (each.device for each in targets)
        versions = tuple(versions_of(each) for each in targets)
        description = Description(device, targets[0].features, package_version(), call, tuple(further), versions)
        host = stage("wrap", lambda: wrap(selections[0], description, selections[1:]))
        library = stage("link", lambda: published(host, schedule.program, settings))
        anew = partial(published, host, schedule.program, settings, anew=True)
        model = stage("load", lambda: load_published(library, anew))
    model.compilation = Compilation(journal.seconds, selections[0].provenance)
    return model


@dataclass(frozen=True)
class _Choice:
    """The stages that depend on the target."""

    settings: Options
    record: Sequence[Row]
    journal: Journal
    early: Early
    means: Means
    hints: Hints

    def made(self, schedule: Schedule, target: Target, suffix: str) -> Selection | OpenSelection:
        """Run them for one target; `suffix` tells its stages from another's."""
        settings, cache = self.settings, self.means.cache
        identity = f"{target.toolchain} {headers_digest()}"
        compiler = Compiler(target.compile, identity, settings.jobs, cache, self.early.children)

        def stage(name: str, run: Callable[[], Value]) -> Value:
            return self.journal.stage(f"{name} {suffix}".strip(), run)

        proposed = stage("variants", lambda: variants(schedule, target, settings.force, self.hints))
        written = stage("render", lambda: render(proposed, target))
        candidates, fit = fitting(proposed, written, settings.force)
        sources = hopeful(fit, candidates, target.device, settings.force)
        recalled = stage("recall", lambda: recall(candidates, sources, target, settings, self.record, cache))
        wanted = recalled.wanted(settings)
        binaries = stage("build", lambda: build_all(sources, wanted, compiler, self.means.advance, recalled.images))
        return stage("tune", lambda: tune(candidates, binaries, recalled, target, settings, self.means))
