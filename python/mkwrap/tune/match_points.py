"""Decides kernels of dynamic sizes: one contest at each point that is measured, all between the same binaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from mkwrap.artifact import OpenPoints, PointRace
from mkwrap.errors import OptionError
from mkwrap.hints import possible
from mkwrap.ir.nearest import MOST_GUARDS
from mkwrap.ir.relations import limits_of
from mkwrap.options import Options
from mkwrap.points import binary_at, kernel_at, odd_size, schedule_at, values_at
from mkwrap.spaces import completed, spell_guard
from mkwrap.stages import Candidates, Point, PointChoice, Provenance, Rejected, Schedule, Tuned, Variant
from mkwrap.toolchain.rejection import settled
from mkwrap.tune.capacity import fitted_table, of_few_guards
from mkwrap.tune.election import elected
from mkwrap.tune.field import Field, field_of
from mkwrap.tune.match import Entrants, Matches, no_variant, now
from mkwrap.tune.points_record import RowChoices, choices_of, point_of, spell_point
from mkwrap.tune.recall import Decision, PointsDecision, Recalled, images_of
from mkwrap.tune.samples import Read, Samples
from mkwrap.tune.table import with_guards
from mkwrap.tune.walk import Walk, Walked, halvings, walk

EXTRA: Mapping[str, int] = {"full": 32, "quick": 24}
"""By tuning mode, how many points at most are added along a line to find where a kernel's winner changes.

Never more than `Options.max_points`. Over several symbols none are: a point beside the grid bounds nothing that it is not near
to, and the table of a grid is small.
"""


# Where a winner changes is not known where races are described: of each gap between two points of a line the quarters have one.
_HALVINGS = 2
_NO_ROOM = f"left out of the open choice, which has room for {MOST_GUARDS} different guards"


class PointMatches:
    """The choices of kernels of dynamic sizes, on what `matches` measures with."""

    def __init__(
        self, candidates: Candidates, options: Options, recalled: Recalled, matches: Matches, read: Read
    ) -> None:
        self._candidates = candidates
        self._options = options
        self._recalled = recalled
        self._matches = matches
        self._read = read

    def field(self, entrants: Entrants) -> Field:
        """Return a kernel's field after the build; raises `NoVariantError` where nothing is left that is right everywhere."""
        found = field_of(self._candidates, entrants.kernel.name, entrants.binaries)
        if not found.free:
            raise no_variant(entrants.kernel, entrants.rejected)
        return found

    def settled(self, entrants: Entrants, unmeasured: str) -> PointsDecision | None:
        """Decide what is forced, recorded, or not measured for the reason given (""; none); None where it is to be measured."""
        field = self.field(entrants)
        name = entrants.kernel.name
        if name in self._options.force:
            return self._forced(entrants, field, self._options.force[name])
        recorded = self._recalled.choices.get(name)
        if recorded is not None and (decided := _answer(recorded, entrants, field)) is not None:
            given = name in self._recalled.recorded
            return replace(decided, provenance=Provenance.RECORD if given else Provenance.CACHE)
        if unmeasured:
            return self._defaults(entrants, field, unmeasured)
        if len(field.guards) == 1:
            return self._defaults(entrants, field, "not measured: there is one variant")
        return None

    def play(self, entrants: Entrants, show: Callable[[str], None]) -> PointsDecision:
        """Measure and decide, showing which point is measured; what was measured is kept.

        Raises `NoVariantError` where no variant gives the right result.
        """
        field = self.field(entrants)
        kernel = entrants.kernel
        if self._matches.trouble:
            return self._defaults(entrants, field, f"not measured: {self._matches.trouble}")
        plan = Walk(
            tuple(field.worth),
            field.legal,
            field.ends,
            lambda point: self._possible(field, point),
            min(EXTRA[self._options.tune], self._options.max_points) if len(field.symbols) == 1 else 0,
            lambda point: self._beside(field, point),
        )
        lasting: list[bool] = []

        def measure(point: Point, some: Sequence[Variant]) -> Decision:
            show(f"{kernel.name} at {spell_point(field.at(point))}")
            decision, keep = self._measured(entrants, field, point, some)
            lasting.append(keep)
            return decision

        with self._matches.device():
            row = self._matches.kept_row(kernel)
            kept = None if row is None else choices_of(row, field, entrants.candidates)
            if kept is not None and (decided := _answer(kept, entrants, field)) is not None:
                return replace(decided, provenance=Provenance.CACHE)
            known = _known(kept or self._recalled.choices.get(kernel.name), entrants, field)
            walked = walk(plan, field.guards, known, measure)
        choices = choices_at_points(entrants, field, walked)
        decision = PointsDecision(choices, provenance=Provenance.MEASURED)
        if not all(lasting) or not settled(entry for choice in choices for entry in choice.rejected):
            return decision
        decision = replace(decision, tuned=Tuned(self._options.tune, now(), images_of(entrants.binaries)))
        self._matches.keep(kernel, decision)
        return decision

    def left_open(self, entrants: Entrants, reason: str) -> tuple[PointsDecision, OpenPoints]:
        """Describe the races at a kernel's points for another machine; until they are held each point has its best guess.

        Variants for whose guards there is no room do not travel; they are among the rejected.
        """
        field = self.field(entrants)
        # Which rows survive is not known yet: host code evaluates the guards of all variants.
        kept = of_few_guards(field.guards, MOST_GUARDS)
        left_out = tuple(Rejected(variant, _NO_ROOM) for variant in field.guards if variant not in kept)
        entrants = replace(entrants, rejected=(*entrants.rejected, *left_out))
        field = replace(field, guards=kept)
        decision = self._defaults(entrants, field, reason)
        built = [with_guards(b, field.guards) for b in entrants.binaries if b.source.variant in field.guards]
        table = fitted_table(field, decision.choices)
        return decision, OpenPoints(
            tuple(built),
            field.symbols,
            {p: tuple(v for v in worth if v in field.guards) or field.runners(p) for p, worth in field.worth.items()},
            self._races(entrants, field),
            table.dispatch(built, field.guards),
        )

    def _races(self, entrants: Entrants, field: Field) -> dict[Point, PointRace]:
        """Describe the races at the points asked for, then beside and between them, of all that may be measured there."""
        beside = {point: self._beside(field, point) for point in field.worth}
        odd = {
            below: tuple(variant for variant in field.runners(point) if field.legal(below, variant))
            for point, below in beside.items()
            if below is not None and below not in beside
        }
        added = halvings(field.worth, _HALVINGS, odd) if len(field.symbols) == 1 else ()
        between = [point for point in added if self._possible(field, point)]
        whole = {point: field.runners(point) for point in (*beside, *between)}
        races = {}
        for point, runners in (whole | odd).items():
            fixed, schedule, samples = self._fixed(entrants, point, runners)
            # Beside a point the fastest at it race, whatever they promise.
            racing, pruned = self._matches.pruned(fixed) if point in whole else (fixed.binaries, ())
            race = self._matches.race(fixed.kernel, racing, schedule, samples, len(whole) + len(odd))
            racers = tuple(binary.source.variant for binary in racing)
            races[point] = PointRace(racers, race, pruned, beside.get(point))
        return races

    def _forced(self, entrants: Entrants, field: Field, label: str) -> PointsDecision:
        forced = next((variant for variant in field.guards if variant.label == label), None)
        if forced is None:
            raise no_variant(entrants.kernel, [r for r in entrants.rejected if r.variant.label == label])
        if not any(field.legal(point, forced) for point in field.worth):
            needs = " and ".join(map(spell_guard, field.guards[forced]))
            raise OptionError(
                f"Options.force names the variant {label!r} of {entrants.kernel.name}, which is right at none of its points "
                f"(it needs {needs}); add a hint where it is"
            )
        return PointsDecision(field.defaults("forced", forced))

    def _defaults(self, entrants: Entrants, field: Field, reason: str) -> PointsDecision:
        first, *others = field.defaults(reason)
        return PointsDecision((replace(first, rejected=entrants.rejected), *others))

    def _beside(self, field: Field, point: Point) -> Point | None:
        """Return the point below that is odd along the symbols that variants ask multiples of; None: there are no such sizes."""
        asked = {s for guards in field.guards.values() for g in guards if g.multiple > 1 for s in g.expr.free_symbols}
        odd = tuple(odd_size(n) if symbol in asked else n for symbol, n in zip(field.symbols, point, strict=True))
        ranges = limits_of(self._candidates.schedule.program.symbols)
        inside = all(max(1, ranges[symbol][0]) <= n for symbol, n in zip(field.symbols, odd, strict=True))
        return odd if odd != point and inside and self._possible(field, odd) else None

    def _possible(self, field: Field, point: Point) -> bool:
        """Whether the program's relations over a kernel's symbols hold at a point."""
        return possible(self._candidates.schedule.program.relations, values_at(field.symbols, point))

    def _measured(
        self, entrants: Entrants, field: Field, point: Point, some: Sequence[Variant]
    ) -> tuple[Decision, bool]:
        """Hold the contest at a point."""
        return self._matches.contest(*self._fixed(entrants, point, tuple(some) or field.runners(point)))

    def _fixed(
        self, entrants: Entrants, point: Point, runners: tuple[Variant, ...]
    ) -> tuple[Entrants, Schedule, Samples | None]:
        """Return the contest of variants at a point: of static values, as for a static kernel."""
        values = completed(entrants.kernel, point, self._candidates.hints)
        binaries = {binary.source.variant: binary for binary in entrants.binaries}
        fixed = Entrants(
            kernel_at(entrants.kernel, values),
            tuple(binary_at(binaries[variant], values) for variant in runners),
            (),
            runners,
        )
        if values == self._candidates.hints.example:
            return fixed, self._example, self._samples
        return fixed, schedule_at(self._candidates.schedule, values, [entrants.kernel.name]), None

    @cached_property
    def _example(self) -> Schedule:
        return schedule_at(self._candidates.schedule, self._candidates.hints.example)

    @cached_property
    def _samples(self) -> Samples:
        return Samples(self._example, self._read)


def _answer(row: RowChoices, entrants: Entrants, field: Field) -> PointsDecision | None:
    """Return the decision that a row stands for, where it has all points and is of these binaries."""
    if row.missing or not row.agrees(images_of(entrants.binaries)):
        return None
    if any(choice.winner not in field.guards for choice in row.choices):
        return None
    built = {binary.source.variant for binary in entrants.binaries}
    if not built.issuperset(field.table(row.choices).variants):
        return None
    return PointsDecision(row.choices, row.tuned)


def _known(row: RowChoices | None, entrants: Entrants, field: Field) -> dict[Point, Decision]:
    """Return what a row says of points that were measured, for one that lacks some."""
    if row is None or not row.agrees(images_of(entrants.binaries)):
        return {}
    return {
        point_of(field, choice.at): Decision(choice.winner, choice.reason, choice.timings, choice.rejected)
        for choice in row.choices
        if choice.timings
    }


def choices_at_points(entrants: Entrants, field: Field, walked: Walked) -> tuple[PointChoice, ...]:
    """Return the choice at each point; a variant that was wrong at one of them wins at none.

    Raises `NoVariantError` where nothing is left that is right everywhere.
    """
    wrong = [entry for decision in walked.measured.values() for entry in decision.rejected]
    fit = field.without(wrong)
    if not fit.free:
        raise no_variant(entrants.kernel, (*entrants.rejected, *wrong))
    measured = {
        point: replace(
            decision,
            winner=decision.winner if decision.winner in fit.guards else fit.runners(point)[0],
            timings=tuple(timing for timing in decision.timings if timing.variant in fit.guards),
        )
        for point, decision in walked.measured.items()
    }
    winners = elected(measured, fit.guards, field.worth, fit.legal, fit.ends, walked.odd)
    for point, (variant, reason) in walked.winners.items():
        if point not in winners:
            winners[point] = (variant if variant in fit.guards else fit.runners(point)[0], reason)
    place = {variant: number for number, variant in enumerate(entrants.candidates)}

    def ordered(rejected: Sequence[Rejected]) -> tuple[Rejected, ...]:
        return tuple(sorted(rejected, key=lambda entry: place[entry.variant]))

    choices = []
    for number, point in enumerate(sorted(winners)):
        decision = measured.get(point)
        own = decision.rejected if decision is not None else ()
        timings = decision.timings if decision is not None else ()
        choices.append(
            PointChoice(
                field.at(point),
                *winners[point],
                tuple(sorted(timings, key=lambda timing: place[timing.variant])),
                ordered((*entrants.rejected, *own) if number == 0 else own),
            )
        )
    return tuple(choices)
