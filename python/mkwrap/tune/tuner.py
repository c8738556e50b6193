"""The tune stage: from open candidates to a closed selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mkwrap.options import Options
from mkwrap.stages import Binary, Candidates, Dispatch, Kernel, Rejected, Selection
from mkwrap.targets.target import Target
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.pool import Advance, silent
from mkwrap.tune.match import Decision, Entrants, Matches, no_variant

_ABSENT = {"cpu": "not measured: this machine lacks the target's instructions", "cuda": "not measured: no device"}


def tune(
    candidates: Candidates,
    binaries: Mapping[str, Sequence[Binary | Rejected]],
    target: Target,
    options: Options,
    cache: Cache | None = None,
    advance: Advance = silent,
) -> Selection:
    """Choose one binary per kernel: the forced, the cached, the measured, or else the first.

    `binaries` holds, per kernel, what became of its variants, in order; variants that nobody measures may be missing.
    Forced kernels and labels exist. Raises `NoVariantError` for a kernel of which every variant (or the forced one) is
    rejected.
    """
    entrants = {name: _entrants(kernel, binaries[name]) for name, kernel in candidates.schedule.kernels.items()}
    decisions: dict[str, Decision] = {}
    with Matches(candidates.schedule, target, options, cache) as matches:
        for name, entry in entrants.items():
            decision = _settled(entry, target, options) or matches.known(entry)
            if decision is not None:
                decisions[name] = decision
        undecided = [entry for name, entry in entrants.items() if name not in decisions]
        matches.prepare(undecided)
        for done, entry in enumerate(undecided):
            advance("tune", done, len(undecided))
            decisions[entry.kernel.name] = matches.play(entry)
        advance("tune", len(undecided), len(undecided))
    return _selection(candidates, entrants, decisions)


def _entrants(kernel: Kernel, binaries: Sequence[Binary | Rejected]) -> Entrants:
    built = tuple(entry for entry in binaries if isinstance(entry, Binary))
    rejected = tuple(entry for entry in binaries if isinstance(entry, Rejected))
    if not built:
        raise no_variant(kernel, rejected)
    return Entrants(kernel, built, rejected)


def _settled(entrants: Entrants, target: Target, options: Options) -> Decision | None:
    """Decide what needs no measurement; None where one is needed."""
    variants = entrants.variants
    label = options.force.get(entrants.kernel.name)
    if label is not None:
        forced = next((variant for variant in variants if variant.label == label), None)
        if forced is None:
            raise no_variant(entrants.kernel, [r for r in entrants.rejected if r.variant.label == label])
        return Decision(forced, "forced")
    if options.deterministic:
        return Decision(variants[0], "not measured: deterministic")
    if options.tune == "off":
        return Decision(variants[0], "not measured: tune is off")
    if not target.present:
        return Decision(variants[0], _ABSENT[target.kind])
    if len(variants) == 1:
        others = "the other variants were rejected" if entrants.rejected else "there is one variant"
        return Decision(variants[0], f"not measured: {others}")
    return None


def _selection(
    candidates: Candidates, entrants: Mapping[str, Entrants], decisions: Mapping[str, Decision]
) -> Selection:
    names = tuple(candidates.schedule.kernels)
    winners = {
        name: next(b for b in entrants[name].binaries if b.source.variant == decisions[name].winner) for name in names
    }
    return Selection(
        schedule=candidates.schedule,
        winners={name: Dispatch((((), winner),)) for name, winner in winners.items()},
        timings={name: decisions[name].timings for name in names},
        rejected={name: (*entrants[name].rejected, *decisions[name].rejected) for name in names},
        reasons={name: decisions[name].reason for name in names},
    )
