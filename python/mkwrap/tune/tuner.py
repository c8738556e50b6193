"""The tune stage: from open candidates to a closed selection."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from mkwrap.artifact import Open, OpenSelection
from mkwrap.options import Options
from mkwrap.stages import Binary, Candidates, Dispatch, DispatchRow, Kernel, Rejected, Selection, Variant
from mkwrap.targets.target import Target
from mkwrap.tune.early import Means
from mkwrap.tune.match import LIMITS, Entrants, Matches, no_variant
from mkwrap.tune.recall import Decision, Recalled, missing_tuning

_ABSENT = {"cpu": "open: this machine lacks the target's instructions", "cuda": "open: no device"}


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
    decisions: dict[str, Decision] = {}
    later = options.tune == "later" or not target.present
    with Matches(candidates.schedule, target, options, recalled, means) as matches:
        for name, entry in entrants.items():
            settled = _forced(entry, options) or matches.known(entry) or _unmeasured(entry, options)
            decision = settled or (None if later else matches.alone(entry))
            if decision is not None:
                decisions[name] = decision
        changed = [name for name in recalled.recorded if name not in decisions or decisions[name].tuned is None]
        if options.require_tuning and changed:
            raise missing_tuning(candidates, dict.fromkeys(changed, "its row is of other bytes than are built here"))
        undecided = [entry for name, entry in entrants.items() if name not in decisions]
        if undecided and later:
            reason = "open: left for later" if target.present else _ABSENT[target.kind]
            open_ones = {entry.kernel.name: matches.left_open(entry, reason) for entry in undecided}
            decisions |= {name: decision for name, (decision, _) in open_ones.items()}
            races = {name: race for name, (_, race) in open_ones.items() if race is not None}
            return _open(_selection(candidates, entrants, decisions, recalled), races)
        matches.prepare(undecided)
        begin = time.monotonic()
        for done, entry in enumerate(undecided):
            # Before the first is known, one kernel takes its budget at the most.
            each = (time.monotonic() - begin) / done if done else LIMITS[options.tune].budget
            left = math.ceil(each * (len(undecided) - done))
            means.advance("tune", done, len(undecided), f"{entry.kernel.name}, {left} s left")
            decisions[entry.kernel.name] = matches.play(entry)
        means.advance("tune", len(undecided), len(undecided))
    return _selection(candidates, entrants, decisions, recalled)


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


def _unmeasured(entrants: Entrants, options: Options) -> Decision | None:
    """Decide where nothing may be measured; None where it may."""
    first = entrants.variants[0]
    if options.deterministic:
        return Decision(first, "not measured: deterministic", (), entrants.rejected)
    if options.tune == "off":
        return Decision(first, "not measured: tune is off", (), entrants.rejected)
    return None


def _selection(
    candidates: Candidates, entrants: Mapping[str, Entrants], decisions: Mapping[str, Decision], recalled: Recalled
) -> Selection:
    names = tuple(candidates.schedule.kernels)
    winners = {
        name: next(b for b in entrants[name].binaries if b.source.variant == decisions[name].winner) for name in names
    }
    return Selection(
        schedule=candidates.schedule,
        winners={name: Dispatch((DispatchRow((), winner),)) for name, winner in winners.items()},
        timings={name: decisions[name].timings for name in names},
        rejected={name: decisions[name].rejected for name in names},
        reasons={name: decisions[name].reason for name in names},
        keys=recalled.keys,
        provenance={name: decisions[name].provenance for name in names},
        tuned={name: tuned for name in names if (tuned := decisions[name].tuned) is not None},
    )


def _open(closed: Selection, races: Mapping[str, Open]) -> Selection | OpenSelection:
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
    )
