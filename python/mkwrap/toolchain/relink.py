"""A linked library taken apart and put together again with fewer parts, without a linker."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NotRequired, TypedDict, cast

from mkwrap.artifact import Row
from mkwrap.errors import LibraryFormatError
from mkwrap.toolchain.library_file import read_library
from mkwrap.toolchain.parts import write_parts

_QUAD = struct.Struct("<q")
_UNSIGNED = struct.Struct("<Q")
_TO_API, _TO_CODE = 8, 16
# Of `mkw_api` in mkwrap/abi.h.
_MANIFEST_BYTES_AT, _CONSTANT_BYTES_AT = 48, 56
_NONE: Mapping[int, bytes] = MappingProxyType({})


class LaunchEntry(TypedDict):
    """What the manifest says of a launch, as far as it is read here."""

    entry: str
    digest: str
    part: int | None


class AlternativeEntry(TypedDict):
    """What the manifest says of a variant that is in the library."""

    variant: str
    alternative: int
    workspace_bytes: int
    scratch_bytes: int
    most_scratch_bytes: int | None
    constants: list[int]
    launches: list[LaunchEntry]
    guards: NotRequired[list[int]]
    """Of an open choice with dynamic sizes: which of its guards the variant asks for."""


class GuardEntry(TypedDict):
    """What the manifest says of a guard."""

    expr: int | str
    most: int | None
    multiple: int


class OpenPointEntry(TypedDict):
    """What the manifest says of an open choice at one point; variants by their positions among the alternatives."""

    at: list[int]
    worth: list[int]
    """Empty where the point was not asked for: between or beside those that were."""
    racers: list[int]
    rejected: list[RejectedEntry]
    beside: list[int] | None
    race: int
    given: list[int]


class OpenEntry(TypedDict):
    """What the manifest says of an open choice: one race, or with dynamic sizes one per point."""

    alternatives: list[AlternativeEntry]
    race: NotRequired[int]
    given: NotRequired[list[int]]
    points: NotRequired[list[OpenPointEntry]]
    symbols: NotRequired[list[str]]
    guards: NotRequired[list[GuardEntry]]


class TimingEntry(TypedDict):
    """What the manifest says of a measured variant."""

    variant: str
    median_us: float
    spread_us: float
    runs: int


class RejectedEntry(TypedDict):
    """What the manifest says of a rejected variant."""

    variant: str
    reason: str


class BuiltEntry(TypedDict):
    """What the manifest says of a variant that was measured, or rejected: the digests of its images."""

    variant: str
    images: list[str]


class TunedEntry(TypedDict):
    """What the manifest says of when and how a choice was measured."""

    mode: str
    measured_at: str
    images: list[BuiltEntry]


class _KernelEntry(TypedDict):
    name: str
    target: int
    origins: list[str]
    winner: str
    reason: str
    timings: list[TimingEntry]
    rejected: list[RejectedEntry]
    tuned: TunedEntry | None
    alternative: int
    workspace_bytes: int
    scratch_bytes: int
    most_scratch_bytes: int | None
    constants: list[int]
    launches: list[LaunchEntry]


class PointEntry(TypedDict):
    """What the manifest says of the choice at a point."""

    at: dict[str, int]
    winner: str
    reason: str
    timings: list[TimingEntry]
    rejected: list[RejectedEntry]


class RowEntry(TypedDict):
    """What the manifest says of a row of a table."""

    point: list[int]
    variant: str
    alternative: int
    handicap: int
    guards: list[GuardEntry]


class DispatchEntry(TypedDict):
    """What the manifest says of a table from sizes to binaries."""

    symbols: list[str]
    rows: list[RowEntry]
    alternatives: list[AlternativeEntry]
    left_out: NotRequired[int]


class KernelEntry(_KernelEntry, total=False):
    """What the manifest says of a kernel on one target.

    `open` only where the choice is open, `dispatch` only where sizes choose among several binaries, `points` only with dynamic
    sizes, `table` only where the kernel's table is a part.
    """

    open: OpenEntry
    dispatch: DispatchEntry
    points: list[PointEntry]
    table: int


class TuningEntry(TypedDict):
    """What the manifest says of a target for the rows of a tuning record."""

    device: dict[str, int | str]
    versions: dict[str, str]


class TargetEntry(TypedDict):
    """What the manifest says of a target."""

    kind: str
    arch: str
    features: list[str]
    device: str
    units: int
    tuning: TuningEntry | None


class MemoryEntry(TypedDict):
    """What the manifest says of memory, in bytes."""

    arena: int | None
    workspace: int | None
    constants: int
    traffic: int


class SymbolEntry(TypedDict):
    """What the manifest says of a dynamic size, as far as it is read here."""

    name: str
    low: int
    high: int


class HintsEntry(TypedDict):
    """The points that a program with dynamic sizes is tuned at."""

    points: list[dict[str, int]]


class Manifest(TypedDict):
    """The manifest, as far as it is read and written here; other keys stay as they are."""

    target: TargetEntry
    targets: list[TargetEntry]
    kernels: list[KernelEntry]
    memory: MemoryEntry
    symbols: list[SymbolEntry]
    """Dynamic sizes; empty where all are static."""
    hints: NotRequired[HintsEntry]
    code: list[str]
    texts: int


class LinkedLibrary:
    """A library file in memory, verified."""

    def __init__(self, path: Path) -> None:
        """Read it; raises `LibraryFormatError` where it is damaged or no library."""
        file = read_library(path)
        self.path = path
        self.seal = file.seal
        self.parts = file.parts
        self.manifest = cast(Manifest, file.manifest)
        self._elf, self._section, self._directory = file.elf, file.section, file.directory

    def code_offset(self, entry: str) -> int:
        """Return the distance from the exported function to a kernel that is not exported, in bytes."""
        return self._code(entry) - self._elf.symbol("mkw_get_api")

    def with_choice(self, manifest: Manifest, rows: Sequence[Row], tables: Mapping[int, bytes] = _NONE) -> bytes:
        """Return the library with another manifest and choice, and of parts and code only what they need, sealed.

        `tables` are new contents of parts. Equal libraries and choices give equal bytes. Raises `LibraryFormatError` where what
        is dropped lies in one segment with what stays, as linkers other than GNU ld may have it.
        """
        alive = parts_needed(manifest)
        sizes = {number: len(self.parts.blobs[number]) for number in alive}
        constants = sum(sizes[number] for number in _constants(manifest))
        manifest = {**manifest, "memory": {**manifest["memory"], "constants": constants}}
        dropped = [entry for entry in self.manifest["code"] if entry not in _entries(manifest)]
        if not any("open" in kernel for kernel in manifest["kernels"]):
            manifest = {**manifest, "code": []}
        text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        blobs = [blob if number in alive else memoryview(b"") for number, blob in enumerate(self.parts.blobs)]
        for number, table in tables.items():
            blobs[number] = memoryview(table)
        blobs[0] = memoryview(text)
        blobs[manifest["texts"]] = memoryview(self._texts(manifest))
        section = io.BytesIO()
        write_parts(section, [lambda blob=blob: blob for blob in blobs], rows, 2**63)  # type: ignore[misc]
        head = bytes(self._elf.bytes_of(self._section)[: self._directory])
        api = self._distance(_TO_API)
        patches = {
            self._elf.place(api + _MANIFEST_BYTES_AT): _UNSIGNED.pack(len(text)),
            self._elf.place(api + _CONSTANT_BYTES_AT): _UNSIGNED.pack(constants),
        }
        sections = [self._elf.section_at(self._code(entry)) for entry in dropped]
        return self._elf.edited(self._section, head + section.getvalue(), sections, patches)

    def _texts(self, manifest: Manifest) -> bytes:
        """Return the texts of the variants that stay."""
        texts = json.loads(bytes(self.parts.blobs[self.manifest["texts"]]))
        for name in {kernel["name"] for kernel in manifest["kernels"]}:
            labels = {label for kernel in manifest["kernels"] if kernel["name"] == name for label in _labels(kernel)}
            texts[name] = {label: text for label, text in texts[name].items() if label in labels}
        return json.dumps(texts, ensure_ascii=False).encode()

    def _code(self, entry: str) -> int:
        return self._distance(_TO_CODE + 8 * self.manifest["code"].index(entry))

    def _distance(self, at: int) -> int:
        """Return the address that the quad at `at` in the section's head is the distance to."""
        try:
            (distance,) = _QUAD.unpack_from(self._elf.bytes_of(self._section), at)
        except struct.error as error:
            raise LibraryFormatError(f"{self.path}: its parts cannot be found: {error}") from error
        return int(distance) + self._section.address + at


def parts_needed(manifest: Manifest) -> set[int]:
    """Return the numbers of the parts that a library with this manifest refers to."""
    needed = {0, manifest["texts"], *_constants(manifest)}
    for kernel in manifest["kernels"]:
        for alternative in _alternatives(kernel):
            needed.update(launch["part"] for launch in alternative["launches"] if launch["part"] is not None)
        if "table" in kernel:
            needed.add(kernel["table"])
        for race in races_of(kernel):
            needed.update((race["race"], *race["given"]))
    return needed


def races_of(kernel: KernelEntry) -> Sequence[OpenEntry | OpenPointEntry]:
    """Return what holds the races of a kernel; nothing where its choice is made."""
    if "open" not in kernel:
        return ()
    return kernel["open"].get("points", [kernel["open"]])


def _alternatives(kernel: KernelEntry) -> Sequence[AlternativeEntry | KernelEntry]:
    several = kernel.get("open", kernel.get("dispatch"))
    return several["alternatives"] if several else [kernel]


def _labels(kernel: KernelEntry) -> set[str]:
    several = kernel.get("open", kernel.get("dispatch"))
    return {alternative["variant"] for alternative in several["alternatives"]} if several else {kernel["winner"]}


def _constants(manifest: Manifest) -> set[int]:
    return {
        c for kernel in manifest["kernels"] for alternative in _alternatives(kernel) for c in alternative["constants"]
    }


def _entries(manifest: Manifest) -> Collection[str]:
    return {
        launch["entry"]
        for kernel in manifest["kernels"]
        for alternative in _alternatives(kernel)
        for launch in alternative["launches"]
    }
