"""The tune stage: from open candidates to a closed selection."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial

from mkwrap.artifact import Open, OpenPoints, OpenSelection
from mkwrap.options import Options
from mkwrap.stages import Binary, Candidates, Dispatch, DispatchRow, Kernel, Rejected, Selection, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.pool import Advance
from mkwrap.tune.capacity import fitted_table
from mkwrap.tune.early import Means
from mkwrap.tune.field import field_of
from mkwrap.tune.match import LIMITS, Entrants, Matches, no_variant
from mkwrap.tune.match_points import PointMatches
from mkwrap.tune.recall import Decision, PointsDecision, Recalled, missing_tuning

_ABSENT = {"cpu": "this machine lacks the target's instructions", "cuda": "no device"}


def tune(
    candidates: Candidates,
    binaries: Mapping[str, Sequence[Binary | Rejected]],
    recalled: Recalled,
    target: Target,
    options: Options,
    means: Means | None = None,
) -> Selection | OpenSelection:
    """Choose one binary per kernel: the forced, the recorded, the measured, or else the first.

    What only a device that is not here can decide stays open, and with `options.tune` "later" what only a device can.

    `binaries` holds, per kernel, what became of its variants, in order; variants that nobody needs may be missing: all but
    the recorded winner, all but the first where nothing is measured. Forced kernels and labels exist.

    Raises `NoVariantError` for a kernel of which every variant (or the forced one) is rejected, `MissingTuningError` where
    `options.require_tuning` is set and a recorded winner has other bytes here.
    """
    entrants = {
        name: _entrants(kernel, binaries[name], candidates.variants[name])
        for name, kernel in candidates.schedule.kernels.items()
    }
    means = means or Means()
    decisions: dict[str, Decision | PointsDecision] = {}
    later = options.tune == "later" or not target.present
    reason = _unmeasured(options)
    with Matches(candidates.schedule, target, options, recalled, means) as matches:
        spread = PointMatches(candidates, options, recalled, matches, means.read)
        for name, entry in entrants.items():
            if name in candidates.points:
                known = spread.settled(entry, reason)
                if known is not None:
                    decisions[name] = known
                continue
            settled = _forced(entry, options) or matches.known(entry) or _first(entry, reason)
            decision = settled or (None if later else matches.alone(entry))
            if decision is not None:
                decisions[name] = decision
        changed = [name for name in recalled.recorded if name not in decisions or decisions[name].tuned is None]
        if options.require_tuning and changed:
            raise missing_tuning(candidates, dict.fromkeys(changed, "its row is of other bytes than are built here"))
        undecided = [entry for name, entry in entrants.items() if name not in decisions]
        if undecided and later:
            opened = _left_open(undecided, candidates, matches, spread, f"open: {_later(target)}")
            decisions |= {name: decision for name, (decision, _) in opened.items()}
            races = {name: race for name, (_, race) in opened.items() if race is not None}
            return _open(_selection(candidates, entrants, decisions, recalled), races)
        matches.prepare(undecided)
        decisions |= _played(undecided, candidates, matches, spread, options, means.advance)
    return _selection(candidates, entrants, decisions, recalled)


def _left_open(
    undecided: Sequence[Entrants], candidates: Candidates, matches: Matches, spread: PointMatches, why: str
) -> dict[str, tuple[Decision | PointsDecision, Open | OpenPoints | None]]:
    """Describe the races of kernels for another machine, with what runs until they are held."""
    found: dict[str, tuple[Decision | PointsDecision, Open | OpenPoints | None]] = {}
    for entry in undecided:
        name = entry.kernel.name
        found[name] = (spread if name in candidates.points else matches).left_open(entry, why)
    return found


def _played(
    undecided: Sequence[Entrants],
    candidates: Candidates,
    matches: Matches,
    spread: PointMatches,
    options: Options,
    advance: Advance,
) -> dict[str, Decision | PointsDecision]:
    """Measure kernels one after another."""
    decisions: dict[str, Decision | PointsDecision] = {}
    begin = time.monotonic()
    for done, entry in enumerate(undecided):
        name = entry.kernel.name
        # Before the first is known, one contest takes its budget at the most.
        each = (time.monotonic() - begin) / done if done else LIMITS[options.tune].budget
        left = f"{math.ceil(each * (len(undecided) - done))} s left"
        advance("tune", done, len(undecided), f"{name}, {left}")
        if name in candidates.points:
            show = partial(advance, "tune", done, len(undecided))
            decisions[name] = spread.play(entry, show)
        else:
            decisions[name] = matches.play(entry)
    advance("tune", len(undecided), len(undecided))
    return decisions


def _entrants(kernel: Kernel, binaries: Sequence[Binary | Rejected], candidates: tuple[Variant, ...]) -> Entrants:
    built = tuple(entry for entry in binaries if isinstance(entry, Binary))
    rejected = tuple(entry for entry in binaries if isinstance(entry, Rejected))
    if not built:
        raise no_variant(kernel, rejected)
    return Entrants(kernel, built, rejected, candidates)


def _forced(entrants: Entrants, options: Options) -> Decision | None:
    """Decide a kernel whose variant the user names."""
    label = options.force.get(entrants.kernel.name)
    if label is None:
        return None
    forced = next((variant for variant in entrants.variants if variant.label == label), None)
    if forced is None:
        raise no_variant(entrants.kernel, [r for r in entrants.rejected if r.variant.label == label])
    return Decision(forced, "forced", (), entrants.rejected)


def _unmeasured(options: Options) -> str:
    """Say why nothing may be measured, here or later; "" where it may."""
    if options.deterministic:
        return "not measured: deterministic"
    return "not measured: tune is off" if options.tune == "off" else ""


def _first(entrants: Entrants, reason: str) -> Decision | None:
    return Decision(entrants.variants[0], reason, (), entrants.rejected) if reason else None


def _later(target: Target) -> str:
    return "left for later" if target.present else _ABSENT[target.kind]


def _selection(
    candidates: Candidates,
    entrants: Mapping[str, Entrants],
    decisions: Mapping[str, Decision | PointsDecision],
    recalled: Recalled,
) -> Selection:
    fixed = {name: decision for name, decision in decisions.items() if isinstance(decision, Decision)}
    points = {name: decision.choices for name, decision in decisions.items() if isinstance(decision, PointsDecision)}
    winners = {name: _dispatch(candidates, entrants[name], decisions[name]) for name in candidates.schedule.kernels}
    return Selection(
        schedule=candidates.schedule,
        winners=winners,
        timings={name: fixed[name].timings if name in fixed else () for name in winners},
        rejected={name: fixed[name].rejected if name in fixed else () for name in winners},
        reasons={name: decisions[name].reason for name in winners},
        keys=recalled.keys,
        provenance={name: decisions[name].provenance for name in winners},
        tuned={name: tuned for name in winners if (tuned := decisions[name].tuned) is not None},
        points=points,
        hints=candidates.hints,
    )


def _dispatch(candidates: Candidates, entrants: Entrants, decision: Decision | PointsDecision) -> Dispatch:
    if isinstance(decision, PointsDecision):
        field = field_of(candidates, entrants.kernel.name, entrants.binaries)
        table = fitted_table(field, decision.choices)
        return table.dispatch(entrants.binaries, field.guards)
    winner = next(b for b in entrants.binaries if b.source.variant == decision.winner)
    return Dispatch((DispatchRow((), winner),))


def _open(closed: Selection, races: Mapping[str, Open | OpenPoints]) -> Selection | OpenSelection:
    """Open a selection again for kernels that a measurement has to decide."""
    if not races:
        return closed
    return OpenSelection(
        schedule=closed.schedule,
        choices={**closed.winners, **races},
        timings=closed.timings,
        rejected=closed.rejected,
        reasons=closed.reasons,
        keys=closed.keys,
        tuned=closed.tuned,
        provenance=closed.provenance,
        points=closed.points,
        hints=closed.hints,
    )
