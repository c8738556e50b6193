"""A contest as it travels in a library: text with numbered bytes, written where the device is not, read where it is.

The text is JSON. A value of `contest.py` is a list of its type's name and an object of its fields, so that a field added there
travels, too; bytes are numbers of parts. Images stay behind: the library holds them already, the text has their digests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Literal, TypeAlias, get_args

from mkwrap.artifact import Blob, EmbeddedConstant, Race
from mkwrap.errors import LibraryFormatError
from mkwrap.ir.dtypes import DType
from mkwrap.stages import Binary, Kernel, Packing, Schedule
from mkwrap.tune.bind import Binder
from mkwrap.tune.contest import (
    Accuracy,
    Argument,
    Call,
    Candidate,
    Contest,
    Fill,
    Limits,
    Memory,
    MemoryArgument,
)
from mkwrap.tune.expected import expected_results
from mkwrap.tune.inputs import memories
from mkwrap.tune.samples import Samples

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Located: TypeAlias = Callable[[Call], Call]
"""From a call whose image is a digest to the same call with the image itself."""

_TYPES: Mapping[str, type] = {
    made.__name__: made for made in (Accuracy, Call, Candidate, Contest, Limits, Memory, *get_args(Argument))
}
_ENUMS: Mapping[str, type[Enum]] = {"DType": DType, "Fill": Fill}
# Right results travel where they are small; of larger ones the default's are the measure.
_MOST_EXPECTED = 1 << 18


def race_of(
    schedule: Schedule,
    kernel: Kernel,
    binaries: Sequence[Binary],
    limits: Limits,
    samples: Samples | None = None,
    cache_bytes: int = 0,
    share: int = 1,
) -> Race:
    """Describe the contest between binaries of a kernel.

    Constants are measured with the bytes that the kernel's first use binds, as the library embeds them, packed or not;
    integers and bools with those of the example call, which therefore travel in the library. `samples`, `cache_bytes`: see
    `memories`. `share`: of so many races the right results travel together as those of one.
    Raises `DynamicShapeError` for sizes that are not numbers.
    """
    own = memories(schedule, kernel, schedule.program.constants, samples, cache_bytes)
    binder = _Describer(kernel, list(own))
    candidates = tuple(binder.bind(binary, [image.digest for image in binary.images]) for binary in binaries)
    constants = _constants(schedule, kernel, binder)
    read = {a.memory for c in candidates for call in c.calls for a in call.args if isinstance(a, MemoryArgument)}
    described = tuple(
        # A constant of which every candidate reads a packed copy: nobody needs its own bytes.
        replace(memory, elements=0, fill=Fill.POISON, given=b"") if k in constants and k not in read else memory
        for k, memory in enumerate(binder.memories)
    )
    expected = expected_results(kernel, own)
    if expected is not None and share * sum(map(len, expected)) > _MOST_EXPECTED:
        expected = None
    kind: Literal["cpu", "cuda"] = "cpu" if binaries[0].source.language == "cpp" else "cuda"
    writer = _Writer({k: blob for k, blob in constants.items() if k in read})
    contest = Contest(kind, described, candidates, limits, expected, cache_bytes)
    text = json.dumps(writer.write(contest), separators=(",", ":"))
    return Race(text, tuple(writer.blobs))


def contest_of(text: str, given: Sequence[bytes], limits: Limits, located: Located) -> Contest:
    """Read a contest back; raises `LibraryFormatError` for a text that is none of `race_of`."""
    try:
        contest = _read(json.loads(text), given)
        if not isinstance(contest, Contest):
            raise TypeError("it is no contest")
        candidates = tuple(
            replace(candidate, calls=tuple(located(call) for call in candidate.calls))
            for candidate in contest.candidates
        )
    except (ValueError, KeyError, TypeError, IndexError, StopIteration, RecursionError) as error:
        raise LibraryFormatError(f"an open choice of the library cannot be read: {error!r}") from error
    return replace(contest, candidates=candidates, limits=limits)


class _Describer(Binder):
    """Binds without making packed copies: the library embeds them."""

    def packed_memory(self, parameter: int, packing: Packing) -> Memory:
        elements = 1
        for extent in packing.shape:
            elements *= extent
        return replace(self.memories[parameter], dtype=packing.dtype, elements=elements, fill=Fill.GIVEN, given=b"")


def _constants(schedule: Schedule, kernel: Kernel, binder: Binder) -> Mapping[int, EmbeddedConstant]:
    """Return what the library embeds for each memory that is a constant's."""
    bound = next((step.buffers for step in schedule.steps if step.kernel == kernel.name), ())
    found = {
        place: EmbeddedConstant(bound[place])
        for place, parameter in enumerate(kernel.parameters)
        if parameter.constant and place < len(bound) and bound[place] in schedule.program.constants
    }
    for (parameter, packing), place in binder.packed.items():
        found[place] = EmbeddedConstant(bound[parameter], packing)
    return found


class _Writer:
    """Turns values into JSON and collects the bytes in them; memories numbered in `constants` have those bytes."""

    def __init__(self, constants: Mapping[int, Blob]) -> None:
        self.blobs: list[Blob] = []
        self._constants = constants

    def write(self, value: object) -> Json:
        """Spell one value."""
        match value:
            case bytes():
                return self._number(value) if value else {"bytes": None}
            case Enum(name=name):
                return {type(value).__name__: name}
            case None | bool() | int() | float() | str():
                return value
            case tuple():
                return {"tuple": [self.write(item) for item in value]}
            case Contest(memories=own):
                spelled: Json = {"tuple": [self._memory(k, memory) for k, memory in enumerate(own)]}
                return [Contest.__name__, {**self._fields(replace(value, memories=())), "memories": spelled}]
        return [type(value).__name__, self._fields(value)]

    def _memory(self, place: int, memory: Memory) -> Json:
        if place not in self._constants:
            return self.write(memory)
        given = self._fields(replace(memory, fill=Fill.GIVEN, given=b""))
        return [Memory.__name__, {**given, "given": self._number(self._constants[place])}]

    def _fields(self, value: object) -> dict[str, Json]:
        if not is_dataclass(value):
            raise TypeError(f"a contest holds a {type(value).__name__}, which has no spelling")
        return {field.name: self.write(getattr(value, field.name)) for field in fields(value)}

    def _number(self, blob: Blob) -> Json:
        self.blobs.append(blob)
        return {"bytes": len(self.blobs) - 1}


def _read(value: object, given: Sequence[bytes]) -> object:
    match value:
        case [str(name), dict(members)]:
            return _TYPES[name](**{str(key): _read(member, given) for key, member in members.items()})
        case {"bytes": None}:
            return b""
        case {"bytes": int(number)}:
            return given[number]
        case {"tuple": list(items)}:
            return tuple(_read(item, given) for item in items)
        case dict():
            ((kind, name),) = value.items()
            return _ENUMS[kind][name]
        case None | bool() | int() | float() | str():
            return value
    raise ValueError(f"{value!r} is no value of a contest")
