"""Makes an open choice of a kernel with dynamic sizes: a race at each point that is measured, then the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import sympy

from mkwrap.codegen.wrapper.tables import TableRow, ordered, packed
from mkwrap.errors import MeasureError
from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.options import Options
from mkwrap.sizes import read_over
from mkwrap.stages import Guard, Point, PointChoice, Variant
from mkwrap.toolchain.relink import (
    AlternativeEntry,
    DispatchEntry,
    GuardEntry,
    KernelEntry,
    OpenPointEntry,
    PointEntry,
    RowEntry,
    SymbolEntry,
)
from mkwrap.tune.capacity import fitted_table
from mkwrap.tune.closing_entries import (
    closed_entry,
    entrants_of,
    rejected_entries,
    rejections,
    stand_in,
    timing_entries,
)
from mkwrap.tune.field import Field, ends_of
from mkwrap.tune.match import Entrants, decide
from mkwrap.tune.match_points import choices_at_points
from mkwrap.tune.measure import Outcome
from mkwrap.tune.points_record import spell_point, summary
from mkwrap.tune.recall import Decision
from mkwrap.tune.table import Table
from mkwrap.tune.walk import Walk, walk

Hold: TypeAlias = Callable[[OpenPointEntry, Sequence[int]], Outcome]
"""Holds the contest of a point between the candidates of these numbers."""

_FUNCTIONS: Mapping[str, Callable[[Expr, Expr], Expr]] = {
    "FloorDiv": FloorDiv,
    "Mod": Mod,
    "Min": sympy.Min,
    "Max": sympy.Max,
}


def closed_at_points(
    kernel: KernelEntry, sizes: Sequence[SymbolEntry], hold: Hold, options: Options, show: Callable[[str], None]
) -> tuple[KernelEntry, bytes]:
    """Measure and decide; returns what the manifest then says of the kernel, and its table as a part.

    The points between two that elect the same are left out; where winners change such are added that have a race. A point
    for which this machine has not the memory stays unmeasured, unless that is so of all, and the choice is no row of a record.
    Raises `NoVariantError` where no variant gives the right result, `MeasureError` where measuring itself failed.
    """
    field = _field(kernel, sizes)
    entrants = entrants_of(kernel, rejections(kernel["name"], kernel["points"][0]["rejected"]))
    entries = {tuple(entry["at"]): entry for entry in kernel["open"]["points"]}

    short: set[Point] = set()

    def measure(point: Point, some: Sequence[Variant]) -> Decision:
        show(f"{kernel['name']} at {spell_point(field.at(point))}")
        decision, lasting = _decided(entrants, tuple(some) or field.runners(point), entries[point], hold)
        short.update(() if lasting else (point,))
        return decision

    def beside(point: Point) -> Point | None:
        found = entries[point]["beside"]
        return None if found is None else tuple(found)

    # Every race made ahead may be held: what a compile is bounded by, `Options.max_points`, bounded them.
    extra = len(entries) if len(field.symbols) == 1 else 0
    plan = Walk(tuple(field.worth), field.legal, field.ends, lambda p: p in entries, extra, beside)
    walked = walk(plan, field.guards, {}, measure)
    if short.issuperset(walked.measured):
        raise MeasureError(f"the kernel {kernel['name']} was {walked.measured[min(short)].reason}")
    closed, table = _closed(kernel, field, choices_at_points(entrants, field, walked), options.tune)
    return ({**closed, "tuned": None} if short else closed), table


def _field(kernel: KernelEntry, sizes: Sequence[SymbolEntry]) -> Field:
    """Return the field of a kernel as the manifest has it."""
    opened = kernel["open"]
    symbols = tuple(size_symbol(name) for name in opened["symbols"])
    variants = [Variant(kernel["name"], alternative["variant"]) for alternative in opened["alternatives"]]
    guards = [_guard(entry, symbols) for entry in opened["guards"]]
    asked = [frozenset(guards[bit] for bit in alternative["guards"]) for alternative in opened["alternatives"]]
    asked_for = [entry for entry in opened["points"] if entry["worth"]]
    worth = {tuple(entry["at"]): tuple(variants[number] for number in entry["worth"]) for entry in asked_for}
    own = entrants_of(kernel).kernel
    ranges = {size_symbol(entry["name"]): (entry["low"], entry["high"]) for entry in sizes}
    return Field(own, symbols, worth, dict(zip(variants, asked, strict=True)), ends_of(symbols, ranges))


def _guard(entry: GuardEntry, symbols: Sequence[sympy.Symbol]) -> Guard:
    expr = read_over(entry["expr"], _FUNCTIONS)({symbol.name: symbol for symbol in symbols})
    return Guard(sympy.sympify(expr), entry["most"], entry["multiple"])


def _decided(
    entrants: Entrants, runners: tuple[Variant, ...], entry: OpenPointEntry, hold: Hold
) -> tuple[Decision, bool]:
    """Hold the race of a point between some of its racers; also returns whether memory was not short for it."""
    racing = [entrants.variants[number] for number in entry["racers"]]
    chosen = [racing.index(variant) for variant in runners if variant in racing] or range(len(racing))
    outcome = hold(entry, chosen)
    racers = tuple(racing[number] for number in chosen)
    pruned = rejections(entrants.kernel.name, entry["rejected"])
    out = [rejected for rejected in pruned if rejected.variant in runners]
    decision, lasting = decide(replace(entrants, binaries=tuple(map(stand_in, runners))), racers, outcome, out)
    if not lasting and not outcome.short:
        raise MeasureError(f"the kernel {entrants.kernel.name} was {decision.reason}")
    return decision, lasting


def _closed(kernel: KernelEntry, field: Field, choices: Sequence[PointChoice], mode: str) -> tuple[KernelEntry, bytes]:
    table = fitted_table(field, choices)
    entries = {alternative["variant"]: alternative for alternative in kernel["open"]["alternatives"]}
    used = [_plain(entries[variant.label]) for variant in table.variants]
    rejected = [entry for choice in choices for entry in choice.rejected]
    closed = closed_entry(kernel, used[0], rejected, mode)
    closed.pop("dispatch", None)
    closed["reason"] = summary(choices)
    closed["points"] = [_point(choice) for choice in choices]
    if len(used) > 1:
        closed["dispatch"] = _dispatch(kernel, table, used)
    return closed, _packed(kernel, field, table)


def _plain(alternative: AlternativeEntry) -> AlternativeEntry:
    """Return what the manifest says of a variant where no choice is open."""
    plain = alternative.copy()
    plain.pop("guards", None)
    return plain


def _point(choice: PointChoice) -> PointEntry:
    return {
        "at": dict(choice.at),
        "winner": choice.winner.label,
        "reason": choice.reason,
        "timings": timing_entries(choice.timings),
        "rejected": rejected_entries(choice.rejected),
    }


def _dispatch(kernel: KernelEntry, table: Table, used: list[AlternativeEntry]) -> DispatchEntry:
    opened = kernel["open"]
    entries = {alternative["variant"]: alternative for alternative in opened["alternatives"]}
    rows: list[RowEntry] = [
        {
            "point": list(point),
            "variant": variant.label,
            "alternative": entries[variant.label]["alternative"],
            "handicap": handicap,
            "guards": [opened["guards"][bit] for bit in entries[variant.label]["guards"]],
        }
        for point, stack in table.stacks.items()
        for variant, handicap in stack
    ]
    found: DispatchEntry = {
        "symbols": [symbol.name for symbol in table.symbols],
        "rows": rows,
        "alternatives": used,
    }
    return found if not table.left_out else {**found, "left_out": table.left_out}


def _packed(kernel: KernelEntry, field: Field, table: Table) -> bytes:
    entries = {alternative["variant"]: alternative for alternative in kernel["open"]["alternatives"]}
    rows = []
    for point, stack in table.stacks.items():
        for variant, handicap in stack:
            entry = entries[variant.label]
            rows.append(TableRow(point, sum(1 << bit for bit in set(entry["guards"])), handicap, entry["alternative"]))
    places = [field.symbols.index(symbol) for symbol in table.symbols]
    return packed(ordered(rows, len(places), kernel["name"]), places)
