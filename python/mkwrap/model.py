"""A library as Python uses it: `load(path)` gives a `Model`, which is called like the function it was compiled from."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import secrets
import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, SupportsIndex

from mkwrap import _C
from mkwrap.artifact import Library
from mkwrap.calls import Symbol, giver, mapping, read_call, read_symbols, sequence, size_reader
from mkwrap.errors import CacheError, InputError, LibraryFormatError, TargetError
from mkwrap.options import Options, given_or_default
from mkwrap.report import Report, make_report
from mkwrap.retune import tuned
from mkwrap.stages import Provenance
from mkwrap.toolchain.destination import expect_place
from mkwrap.toolchain.seal import verify
from mkwrap.tune.record import rows_of
from mkwrap.tune.record_file import write_record

MANIFEST_FORMAT = 1

# The runtime takes an ordinal of 32 bits.
_MOST_ORDINAL = 2**31 - 1


@dataclass(frozen=True)
class Compilation:
    """How a model came to be: for one that `compile` returned, not for one that was loaded."""

    seconds: Mapping[str, float]
    """By stage, in order."""
    choices: Mapping[str, Provenance]
    """Where the evidence for each kernel's choice comes from."""


class Signature(NamedTuple):
    """What a model takes and gives: its tensor arguments and the tensors it makes."""

    inputs: tuple[_C.TensorInfo, ...]
    outputs: tuple[_C.TensorInfo, ...]
    shapes: tuple[tuple[str, ...], ...]
    """Of inputs, then outputs; dynamic sizes are expressions over the names of `Model.symbols`."""

    def __str__(self) -> str:
        """Spell like `(args[0]: float32[rows, 8]) → float32[rows, 8]`."""
        shapes = iter(f"[{', '.join(shape)}]" for shape in self.shapes)
        taken = ", ".join(f"{i.path}: {i.dtype}{next(shapes)}{' (written)' if i.mutated else ''}" for i in self.inputs)
        given = ", ".join(f"{o.dtype}{next(shapes)}" for o in self.outputs)
        return f"({taken}) → {given or 'nothing new'}"


class Model(_C.Model):
    """A compiled function: call it with what the function takes, get what the function gives.

    Calls are checked (`InputError`), may come from several threads, and record no gradient. Results are torch tensors;
    arguments may also be other arrays that speak DLPack.
    """

    def __init__(self, path: str | os.PathLike[str], *, exchange: bool = True) -> None:
        """Verify and load the library; its kernels reach the device on the first call, or by `create(ordinal)`.

        `exchange=False` avoids DLPack's C exchange API (slower; for tests). Raises `LibraryFormatError`, `InputError` for what
        is no path.
        """
        self.path = _library_path(path)
        self.compilation: Compilation | None = None
        self.symbols: tuple[Symbol, ...] = ()
        """The dynamic sizes; none in a library of static shapes."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise LibraryFormatError(f"{self.path} cannot be read: {error.strerror}") from error
        with file:
            verify(file, str(self.path))
            super().__init__(file.fileno(), str(self.path), exchange)
        try:
            self._read_manifest()
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise LibraryFormatError(f"{self.path}: its manifest cannot be read: {error!r}") from error

    def _read_manifest(self) -> None:
        self.manifest: Mapping[str, object] = mapping(json.loads(self.manifest_text))
        if self.manifest["format"] != MANIFEST_FORMAT:
            raise LibraryFormatError(
                f"{self.path}: its manifest has format {self.manifest['format']}, not {MANIFEST_FORMAT}"
            )
        self._call = read_call(mapping(self.manifest["call"]))
        outputs = [mapping(output) for output in sequence(self.manifest["outputs"])]
        self.symbols = read_symbols(self.manifest)
        sizes = size_reader(self.symbols)
        self._gives = tuple(giver(output, sizes) for output in outputs)
        takes = len(self._call.paths) - len(self._call.constants)
        if takes != len(self.inputs) or len(list(self._call.result.paths(""))) != len(self._gives):
            raise LibraryFormatError(f"{self.path}: its manifest describes other arguments than its code")
        fresh = all(output["kind"] == "buffer" and output["index"] == k for k, output in enumerate(outputs))
        if fresh and len(outputs) == len(self.outputs):
            self.flat = self._call.flat

    def nested(self, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Answer every call that is not all tensors in order in, fresh tensors in order out."""
        tensors = self._call.flatten(args, kwargs)
        buffers = self.run(tensors)
        results: list[object] = []
        for give in self._gives:
            results.append(give(tensors, buffers, results))
        return self._call.result.unflatten(iter(results))

    def create(self, device: int) -> None:
        """Create the model on a device ordinal (CPU: 0); the first call does it where its first input lives.

        Raises `InputError` for what is no ordinal, `TargetError` where there is no such device or the model lives on another
        already, `DriverError`, `ArchitectureError`.
        """
        if isinstance(device, bool) or not isinstance(device, SupportsIndex):
            raise InputError(f"device is {device!r}; expected a device's ordinal, an integer (0 for the CPU)")
        ordinal = operator.index(device)
        if not 0 <= ordinal <= _MOST_ORDINAL:
            raise TargetError(f"there is no {self.device_type} device {device}; the first is 0")
        try:
            super().create(ordinal)
        except ValueError as error:
            hint = "; a CPU library takes device 0" if self.device_type == "cpu" else ""
            raise TargetError(f"the library cannot be loaded on device {device}: {error}{hint}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the library to path, atomically: a reader sees the old file or the whole new one.

        Raises `CacheError`, naming `path`, where it cannot be written, or where a device, a FIFO or a folder is.
        """
        target = Path(path)
        expect_place(target, "the library")
        try:
            self._publish(target)
        except OSError as error:
            raise CacheError(f"cannot write the library to {target}: {error.strerror or error}") from error

    def _publish(self, target: Path) -> None:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as file:
                _copy(self.file, file.fileno())
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()

    def save_tuning(self, path: str | os.PathLike[str]) -> int:
        """Write the rows of the library's tuning record, one per measured kernel, and return how many there are.

        The file is what `Options.tuning` takes; docs/record.md is its schema. Raises `TuningRecordError` where it cannot
        be written, `LibraryFormatError` where the library's own rows make no sense.
        """
        try:
            rows = tuple(rows_of(self.manifest))
        except ValueError as error:
            raise LibraryFormatError(f"{self.path}: its tuning record cannot be read: {error}") from error
        return write_record(Path(path), rows)

    @cached_property
    def signature(self) -> Signature:
        """Return what the model takes and gives."""
        taken, given = (map(mapping, sequence(self.manifest[key])) for key in ("inputs", "outputs"))
        made = sorted((t for t in given if t["kind"] == "buffer"), key=lambda tensor: int(str(tensor["index"])))
        shapes = tuple(tuple(map(str, sequence(tensor["shape"]))) for tensor in (*taken, *made))
        return Signature(self.inputs, self.outputs, shapes)

    @cached_property
    def report(self) -> Report:
        """Return the kernels with every variant's time or rejection; print it."""
        return make_report(self.manifest)

    def __repr__(self) -> str:
        """Name the file, the target and the signature."""
        target = mapping(self.manifest["target"])
        return f"<mkwrap.Model {self.path.name} for {target['kind']}:{target['arch']} {self.signature}>"


def _library_path(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise InputError(f"the path of a library is expected, got {path!r}") from None


def load(path: str | os.PathLike[str], *, device: int = 0, tune: bool = False, options: Options | None = None) -> Model:
    """Load a saved library and create the model on a device ordinal (CPU: 0).

    `tune` makes the choices that were left open (docs/open-choice.md) for this machine first; the tuned library is kept in
    the cache of `options`, where the next call finds it, and the file at `path` stays as it is.

    Raises `LibraryFormatError` (no library, damaged, another version), `InputError` (`path` is no path, `device` no ordinal),
    `TargetError` (there is no such device), `DriverError` (no CUDA driver), `ArchitectureError` (no code for this machine).
    """
    settings = given_or_default(options)
    model = Model(tuned(_library_path(path), None, settings) if tune else path)
    model.create(device)
    return model


def tune_library(
    path: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, options: Options | None = None
) -> Model:
    """Measure the variants of a library whose choice was left open, on this machine; return the library of the winners.

    It is written to `output`, which may be `path`, or kept in the cache where that is None. Neither a compiler nor a linker
    is needed. Raises `ArchitectureError` and `DriverError` where this machine cannot run the library, `NoVariantError` for a
    kernel of which no variant gives the right result, `MeasureError` where measuring failed, `LibraryFormatError`.
    """
    target = Path(output) if output is not None else None
    return Model(tuned(_library_path(path), target, given_or_default(options)))


def load_published(library: Library, anew: Callable[[], Library]) -> Model:
    """Load a library that was linked, or found in the cache; one that is damaged there, or was evicted just now, is made `anew`.

    One that is not kept goes with the model.
    """
    try:
        model = Model(library.path)
    except LibraryFormatError:
        library = anew()
        model = Model(library.path)
    if not library.kept:
        weakref.finalize(model, shutil.rmtree, library.path.parent, ignore_errors=True)
    return model


def _copy(source: int, destination: int) -> None:
    offset = 0
    while sent := os.sendfile(destination, source, offset, 1 << 30):
        offset += sent
