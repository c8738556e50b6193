"""The parts of a library, by number: the manifest, constants as kernels read them, images, and what races need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mkwrap.artifact import Blob, EmbeddedConstant, Open, OpenPoints, Race
from mkwrap.codegen.wrapper.contents import AnyChoice, Contents, choice_of
from mkwrap.codegen.wrapper.sizes import round_up
from mkwrap.errors import CaptureError, InternalError
from mkwrap.ir.nodes import Role
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Image,
    Kernel,
    Packing,
    Program,
    Step,
)

_DEVICE_ALIGNMENT = 256


@dataclass(frozen=True)
class PlacedConstant:
    """One constant in one layout: its part, its size, and its place in device memory (bytes)."""

    constant: str
    packing: Packing | None
    part: int
    size: int
    offset: int


@dataclass(frozen=True)
class Constants:
    """Every constant the steps read, once per layout."""

    placed: tuple[PlacedConstant, ...]

    @property
    def total(self) -> int:
        """Bytes of device memory that hold them all."""
        return max((round_up(c.offset + c.size, _DEVICE_ALIGNMENT) for c in self.placed), default=0)

    @property
    def names(self) -> frozenset[str]:
        """Names of the constants in use."""
        return frozenset(c.constant for c in self.placed)

    def find(self, name: str, packing: Packing | None) -> PlacedConstant:
        """Return the place of a constant in a layout."""
        for placed in self.placed:
            if placed.constant == name and placed.packing == packing:
                return placed
        raise InternalError(f"the constant {name} is not embedded in the layout a step reads")


@dataclass(frozen=True)
class PlacedImage:
    """One image of an alternative of kernel number `kernel`, and its part."""

    image: Image
    part: int
    kernel: int
    alternative: int
    title: str
    """The kernel variant it belongs to, for messages."""


@dataclass(frozen=True)
class PlacedRace:
    """A race of an open kernel on one target, and the parts that hold it."""

    kernel: str
    target: int
    part: int
    given: tuple[int, ...]
    """Parts of the bytes that the race numbers; races share equal ones."""


@dataclass(frozen=True)
class Parts:
    """Every part behind the manifest, which is number 0: constants, then images, races, tables and, last, the texts."""

    constants: Constants
    images: tuple[PlacedImage, ...]
    races: tuple[PlacedRace, ...]
    """Of a kernel with dynamic sizes one per point, in the order of its points."""
    raced: tuple[Blob, ...]
    """What the parts of races hold."""
    tables: Mapping[tuple[str, int], int]
    """By kernel and target: the part that is an open table."""

    @property
    def texts(self) -> int:
        """The last part: what the library was compiled from."""
        return 1 + len(self.constants.placed) + len(self.images) + len(self.raced) + len(self.tables)

    def blobs(self, manifest: bytes, tables: Sequence[bytes], texts: bytes) -> tuple[Blob, ...]:
        """Return what each part holds."""
        constants = [EmbeddedConstant(c.constant, c.packing) for c in self.constants.placed]
        return (manifest, *constants, *(placed.image.blob for placed in self.images), *self.raced, *tables, texts)

    def image(self, kernel: int, alternative: int, image: Image) -> int:
        """Return the position of an alternative's image among `images`."""
        for position, placed in enumerate(self.images):
            if (placed.kernel, placed.alternative, placed.image) == (kernel, alternative, image):
                return position
        raise InternalError(f"the image {image.entry} is not embedded")


def place_parts(contents: Contents, *, images: bool) -> Parts:
    """Number the parts; images are among them where they are loaded at run time, not linked."""
    constants = place_constants(contents)
    part = 1 + len(constants.placed)
    placed: list[PlacedImage] = []
    for number, (name, alternatives) in enumerate(contents.kernels.items() if images else ()):
        for position, alternative in enumerate(alternatives):
            title = f"{name} {alternative.binary.source.variant.label}"
            for image in dict.fromkeys(alternative.binary.images):
                placed.append(PlacedImage(image, part, number, position, title))
                part += 1
    races: list[PlacedRace] = []
    raced: list[Blob] = []
    shared: dict[Blob, int] = {}
    for target, selection in enumerate(contents.selections):
        for name in contents.kernels:
            for race in _races(choice_of(selection, name)):
                own = part + len(raced)
                raced.append(race.text.encode())
                for blob in race.given:
                    if blob not in shared:
                        shared[blob] = part + len(raced)
                        raced.append(blob)
                races.append(PlacedRace(name, target, own, tuple(shared[blob] for blob in race.given)))
    tables = {key: part + len(raced) + number for number, key in enumerate(contents.open_tables)}
    return Parts(constants, tuple(placed), tuple(races), tuple(raced), tables)


def _races(choice: AnyChoice) -> tuple[Race, ...]:
    match choice:
        case Open(race=race):
            return (race,)
        case OpenPoints(races=races):
            return tuple(point.race for point in races.values())
        case _:
            return ()


def place_constants(contents: Contents) -> Constants:
    """Collect the constants of all steps in order of first use; the same layout of one constant is placed once."""
    wanted: dict[tuple[str, Packing | None], None] = {}
    for step in contents.schedule.steps:
        for alternative in contents.kernels[step.kernel]:
            wanted.update(dict.fromkeys(_layouts(contents, step, alternative.binary)))
    placed: list[PlacedConstant] = []
    offset = 0
    for number, (name, packing) in enumerate(wanted):
        size = _bytes(contents.schedule.program, name, packing)
        placed.append(PlacedConstant(name, packing, 1 + number, size, offset))
        offset = round_up(offset + size, _DEVICE_ALIGNMENT)
    return Constants(tuple(placed))


def constant_parts(contents: Contents, constants: Constants, kernel: str, binary: Binary) -> tuple[int, ...]:
    """Return the parts of the constants that a kernel's steps read if they run this binary."""
    steps: Sequence[Step] = [step for step in contents.schedule.steps if step.kernel == kernel]
    layouts = {layout for step in steps for layout in _layouts(contents, step, binary)}
    return tuple(sorted(constants.find(name, packing).part for name, packing in layouts))


def _layouts(contents: Contents, step: Step, binary: Binary) -> list[tuple[str, Packing | None]]:
    """Return the constants a step reads with this binary, each with its layout."""
    program, kernel = contents.schedule.program, contents.schedule.kernels[step.kernel]
    found = []
    for launch in binary.source.launches:
        for argument in launch.args:
            if isinstance(argument, BufferArgument):
                name = _constant(program, kernel, step, argument)
                if name is not None:
                    found.append((name, argument.packing))
    return found


def _constant(program: Program, kernel: Kernel, step: Step, argument: BufferArgument) -> str | None:
    name = step.buffers[argument.parameter]
    if program.buffers[name].role is not Role.CONSTANT:
        if argument.packing is not None:
            raise InternalError(f"{kernel.name} packs {name}, which is no constant")
        return None
    if kernel.parameters[argument.parameter].access is not Access.READ:
        raise CaptureError(
            f"the program writes to {name}, a parameter or buffer of the module; pass it as an argument instead"
        )
    return name


def _bytes(program: Program, name: str, packing: Packing | None) -> int:
    if packing is None:
        return int(program.constants[name].data.nbytes)
    elements = 1
    for extent in packing.shape:
        elements *= extent
    return int(elements) * packing.dtype.itemsize
