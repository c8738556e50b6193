"""What the manifest says of kernels: the choice on each target, its evidence, and what is left open; docs/manifest.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from mkwrap.artifact import Open, OpenPoints
from mkwrap.codegen.wrapper.blobs import PlacedRace, constant_parts
from mkwrap.codegen.wrapper.contents import AnySelection, Contents, choice_of
from mkwrap.codegen.wrapper.launcher import Layout
from mkwrap.codegen.wrapper.sizes import is_static, largest
from mkwrap.codegen.wrapper.tables import guards_of
from mkwrap.ir.nodes import Expr
from mkwrap.ir.spelled import spelled
from mkwrap.stages import Binary, Dispatch, Guard, PointChoice, Rejected, Timing

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


def describe_kernel(contents: Contents, layout: Layout, name: str, target: int) -> Json:
    """Describe a kernel on one target."""
    steps = [number for number, step in enumerate(contents.schedule.steps) if step.kernel == name]
    origins = dict.fromkeys(origin for number in steps for origin in contents.schedule.steps[number].origins)
    return {
        "name": name,
        "target": target,
        "steps": steps,
        "uses": len(steps),
        "origins": list(origins),
        **_choice(contents, layout, name, target),
    }


def _choice(contents: Contents, layout: Layout, name: str, target: int) -> Mapping[str, Json]:
    selection = contents.selections[target]
    alternatives = {
        number: _alternative(contents, layout, name, number) for number in contents.alternatives(name, target)
    }
    table = contents.dispatch(name, target)
    runs = list(alternatives) if table is None else _numbers(contents, name, target, table)
    described: dict[str, Json] = {
        "winner": alternatives[runs[0]]["variant"],
        "reason": selection.reasons.get(name, ""),
        **_evidence(selection.timings.get(name, ()), selection.rejected.get(name, ())),
        **{key: value for key, value in alternatives[runs[0]].items() if key != "variant"},
        **_tuned(selection, name),
    }
    if name in selection.points:
        described["points"] = [_point(choice) for choice in selection.points[name]]
    races = [race for race in layout.parts.races if (race.kernel, race.target) == (name, target)]
    match choice_of(selection, name):
        case Open():
            described["open"] = _race(races[0]) | {"alternatives": list(alternatives.values())}
        case OpenPoints() as choice:
            described["open"] = _open_points(guards_of(contents, name, target), choice, races, alternatives)
    if (name, target) in layout.parts.tables:
        described["table"] = layout.parts.tables[name, target]
    if table is not None and len(set(runs)) > 1:
        own = [alternatives[number] for number in dict.fromkeys(runs)]
        described["dispatch"] = _dispatch(table, runs, own)
    return described


def _race(race: PlacedRace) -> dict[str, Json]:
    return {"race": race.part, "given": race.given}


def _open_points(
    guards: Sequence[Guard],
    choice: OpenPoints,
    races: Sequence[PlacedRace],
    alternatives: Mapping[int, dict[str, Json]],
) -> Json:
    """Describe an open choice of dynamic sizes; variants are positions among the alternatives, guards are bits of tables."""
    position = {binary.source.variant: number for number, binary in enumerate(choice.binaries)}
    needed = [[guards.index(guard) for guard in binary.source.guards] for binary in choice.binaries]
    return {
        "alternatives": [a | {"guards": bits} for a, bits in zip(alternatives.values(), needed, strict=True)],
        "guards": [_guard(guard) for guard in guards],
        "symbols": [str(symbol.name) for symbol in choice.symbols],
        "points": [
            {
                "at": list(point),
                "worth": [position[variant] for variant in choice.worth.get(point, ())],
                "racers": [position[variant] for variant in own.racers],
                "rejected": _evidence((), own.pruned)["rejected"],
                "beside": own.beside,
                **_race(race),
            }
            for (point, own), race in zip(choice.races.items(), races, strict=True)
        ],
    }


def _point(choice: PointChoice) -> Json:
    found: dict[str, Json] = {"at": choice.at, "winner": choice.winner.label, "reason": choice.reason}
    return found | _evidence(choice.timings, choice.rejected)


def _evidence(timings: Sequence[Timing], rejected: Sequence[Rejected]) -> dict[str, Json]:
    return {
        "timings": [
            {
                "variant": timing.variant.label,
                "median_us": timing.median_us,
                "spread_us": timing.spread_us,
                "runs": timing.runs,
            }
            for timing in timings
        ],
        "rejected": [{"variant": entry.variant.label, "reason": entry.reason} for entry in rejected],
    }


def _numbers(contents: Contents, name: str, target: int, table: Dispatch) -> list[int]:
    """Return the alternative of each row of a table."""
    numbers = contents.alternatives(name, target)
    binaries = [contents.kernels[name][number].binary for number in numbers]
    return [numbers[binaries.index(row.binary)] for row in table.rows]


def _dispatch(table: Dispatch, numbers: Sequence[int], alternatives: Sequence[Json]) -> Json:
    """Describe a table; its rows are in their own order, in which the first of equals is elected."""
    rows: list[Json] = [
        {
            "point": list(row.point),
            "variant": row.binary.source.variant.label,
            "alternative": number,
            "handicap": row.handicap,
            "guards": [_guard(guard) for guard in row.binary.source.guards],
        }
        for row, number in zip(table.rows, numbers, strict=True)
    ]
    symbols: list[Json] = [symbol.name for symbol in table.symbols]
    left_out: Mapping[str, Json] = {"left_out": table.left_out} if table.left_out else {}
    return {"symbols": symbols, "rows": rows, "alternatives": alternatives, **left_out}


def _guard(guard: Guard) -> Json:
    return {"expr": describe_size(guard.expr), "most": guard.most, "multiple": guard.multiple}


def _tuned(selection: AnySelection, name: str) -> Mapping[str, Json]:
    """What a kernel's row in a tuning record holds that no other key says."""
    key, tuned = selection.keys.get(name), selection.tuned.get(name)
    return {
        "key": None if key is None else key.choice,
        "nest": None if key is None else key.nest,
        "tuned": None
        if tuned is None
        else {
            "mode": tuned.mode,
            "measured_at": tuned.measured_at,
            # A list: the first is the default, and the manifest's keys are sorted.
            "images": [{"variant": label, "images": images} for label, images in tuned.images.items()],
        },
    }


def _alternative(contents: Contents, layout: Layout, name: str, number: int) -> dict[str, Json]:
    binary = contents.kernels[name][number].binary
    return {
        "variant": binary.source.variant.label,
        "alternative": number,
        "workspace_bytes": describe_size(binary.source.workspace_bytes),
        "scratch_bytes": describe_size(layout.scratch[name][number]),
        "most_scratch_bytes": largest(layout.scratch[name][number], contents.schedule.program.symbols),
        "constants": constant_parts(contents, layout.parts.constants, name, binary),
        "launches": _launches(contents, layout, name, number, binary),
    }


def _launches(contents: Contents, layout: Layout, name: str, number: int, binary: Binary) -> Json:
    placed = layout.parts.images
    launches: list[Mapping[str, Json]] = []
    for image in binary.images:
        part = layout.parts.image(contents.number(name), number, image) if placed else None
        launches.append(
            {
                "entry": image.entry,
                "digest": image.digest,
                "threads": image.threads,
                "shared_bytes": image.shared_bytes,
                "registers": image.registers,
                "spilled_bytes": image.spilled_bytes,
                "part": None if part is None else placed[part].part,
            }
        )
    return launches


def describe_size(expr: Expr | int) -> Json:
    """Describe a size: a number, or the text of an expression."""
    return int(expr) if is_static(expr) else spelled(expr)
