"""`mkwrap inspect`: what a library is, read from its file. Nothing of it is loaded, so no device is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mkwrap.cli.output import AsJson, print_json, print_lines, show
from mkwrap.codegen.wrapper.text import spell_shape
from mkwrap.errors import CacheError, LibraryFormatError, OptionError
from mkwrap.report import KernelRow, make_report, spell_bytes
from mkwrap.toolchain.library_file import LibraryFile, read_library

_NO_BOUND = 2**63 - 1
_ENDINGS: Mapping[str, str] = {"cpu": ".cpp", "cuda": ".py"}


def inspect_command(
    library: Annotated[Path, typer.Argument(help="The library.", show_default=False)],
    kernel: Annotated[str | None, typer.Option("--kernel", help="This kernel alone, with every source line.")] = None,
    extract: Annotated[
        Path | None, typer.Option(help="Write the manifest, cubins, kernel sources and host code into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a library: arguments, kernels with every variant's time, resources, origins. With --json: the manifest."""
    file = read_library(library)
    try:
        report = make_report(file.manifest)
        written = [] if extract is None else _extracted(file, extract)
        if as_json:
            print_json({**file.manifest, "extracted": [str(path) for path in written]} if extract else file.manifest)
            return
        if kernel is None:
            show(_facts(file), Text(), report)
        else:
            chosen = [row for row in report.kernels if row.name == kernel]
            if not chosen:
                raise OptionError(
                    f"--kernel is {kernel!r}; the kernels are: {', '.join(k.name for k in report.kernels)}"
                )
            tables = [entry for entry in _objects(file.manifest["kernels"]) if entry["name"] == kernel]
            for row, entry in zip(chosen, tables, strict=True):
                show(row, *_details(row), *(_table(entry) if "dispatch" in entry else ()))
    except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise LibraryFormatError(f"{library}: its manifest cannot be read: {error!r}") from error
    print_lines(f"wrote {path}" for path in written)


def _facts(file: LibraryFile) -> Table:
    manifest = file.manifest
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("library", f"{file.path}, {spell_bytes(file.size)}, mkwrap {manifest['mkwrap_version']}")
    for title, tensors in (("takes", manifest["inputs"]), ("gives", manifest["outputs"])):
        for tensor in _objects(tensors):
            table.add_row(title, Text(_tensor(tensor)))
            title = ""  # noqa: PLW2901 — said once
    for symbol in _objects(manifest["symbols"]):
        table.add_row("size", Text(_symbol(symbol, _objects(manifest["inputs"]))))
    tunings = [tuning for target in _objects(manifest["targets"]) if isinstance(tuning := target["tuning"], Mapping)]
    for tuning in tunings:
        versions = tuning["versions"]
        assert isinstance(versions, Mapping)
        table.add_row("made by", Text(f"torch {versions['torch']}, {versions['toolchain']}"))
    return table


def _symbol(symbol: Mapping[str, object], inputs: Sequence[Mapping[str, object]]) -> str:
    """Spell a dynamic size, its range and what it is read from."""
    bound = "any size" if symbol["high"] == _NO_BOUND else symbol["high"]
    scale = f"{symbol['scale']}·" if symbol["scale"] != 1 else ""
    added = int(str(symbol["offset"]))
    offset = f" {'+' if added > 0 else '-'} {abs(added)}" if added else ""
    extent = f", which is {scale}{symbol['name']}{offset} long" if scale or offset else ""
    path = inputs[int(str(symbol["input"]))]["path"]
    return f"{symbol['name']}: {symbol['low']} to {bound}, read from dimension {symbol['dim']} of {path}{extent}"


def _table(entry: Mapping[str, object]) -> Iterator[Text]:
    """Spell the rows of a kernel's table, as the library elects among them (docs/dynamic.md)."""
    dispatch = entry["dispatch"]
    assert isinstance(dispatch, Mapping)
    symbols = _list(dispatch["symbols"])
    for row in _objects(dispatch["rows"]):
        point = " ".join(f"{name}={size}" for name, size in zip(symbols, _list(row["point"]), strict=True))
        said = [f"handicap {int(str(row['handicap'])) / 65536:g}"] if row["handicap"] else []
        for guard in _objects(row["guards"]):
            said += [f"{guard['expr']} ≤ {guard['most']}"] if guard["most"] is not None else []
            said += [f"{guard['multiple']} divides {guard['expr']}"] if guard["multiple"] != 1 else []
        yield Text(f"row  {point}: {row['variant']}{'; ' if said else ''}{', '.join(said)}")


def _tensor(tensor: Mapping[str, object]) -> str:
    if "dtype" not in tensor:
        return f"{tensor['kind']} {tensor.get('value', '')}".strip()
    said = [f"{tensor['dtype']} {spell_shape(_list(tensor['shape']))}", f"strides {list(_list(tensor['strides']))}"]
    said += [f"aligned to {tensor['alignment']} bytes"] if "alignment" in tensor else []
    said += ["written"] if tensor.get("mutated") else []
    said += ["a view of an input"] if tensor.get("kind") == "input_view" else []
    name = f"{tensor['path']}: " if "path" in tensor else ""
    return name + ", ".join(said)


def _details(row: KernelRow) -> Iterator[Text]:
    yield Text()
    for launch in row.launches:
        yield Text(f"launch  {launch}")
    yield Text(f"workspace  {row.workspace_bytes} bytes")
    for origin in row.origins:
        yield Text(f"from  {origin}")


def _extracted(file: LibraryFile, folder: Path) -> list[Path]:
    """Write what the file holds and return the paths. Machine code of a CPU library is linked and has no file of its own."""
    contents: dict[str, bytes] = {"manifest.json": json.dumps(file.manifest, indent=2, ensure_ascii=False).encode()}
    kind = _target_kind(file.manifest)
    number = file.manifest["texts"]
    assert isinstance(number, int)
    texts = json.loads(bytes(file.parts.blobs[number]))
    contents["host.cpp"] = texts.pop("")["host"].encode()
    for name, variants in texts.items():
        for label, text in variants.items():
            contents[f"{name}-{_plain(label)}{_ENDINGS[kind]}"] = text.encode()
    for kernel in _objects(file.manifest["kernels"]):
        for launch in _all_launches(kernel):
            part = launch["part"]
            if isinstance(part, int):
                arch = _objects(file.manifest["targets"])[int(str(kernel["target"]))]["arch"]
                contents[f"{kernel['name']}-{launch['entry']}-{arch}.cubin"] = bytes(file.parts.blobs[part])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise CacheError(f"cannot write to {folder}: {error.strerror}") from error
    return [folder / name for name in contents]


def _all_launches(kernel: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the launches of every variant of a kernel in the library: several where the choice is open, or one of size."""
    choice = kernel.get("open", kernel.get("dispatch"))
    variants = _objects(choice["alternatives"]) if isinstance(choice, Mapping) else [kernel]
    return [launch for variant in variants for launch in _objects(variant["launches"])]


def _target_kind(manifest: Mapping[str, object]) -> str:
    target = manifest["target"]
    assert isinstance(target, Mapping)
    return str(target["kind"])


def _plain(label: str) -> str:
    """Spell a variant's label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", label).strip("-")


def _list(value: object) -> Sequence[object]:
    assert isinstance(value, list)
    return value


def _objects(value: object) -> list[Mapping[str, object]]:
    found = []
    for entry in _list(value):
        assert isinstance(entry, Mapping)
        found.append(entry)
    return found
