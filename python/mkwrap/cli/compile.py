"""`mkwrap compile`: a program to a library."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias, cast

import typer
from rich.text import Text

import mkwrap
from mkwrap.cli.output import AsJson, print_json, show
from mkwrap.errors import OptionError, TuningRecordError
from mkwrap.options import Options, TuneMode
from mkwrap.report import spell_bytes
from mkwrap.toolchain.destination import expect_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mkwrap.cli.programs import Named
    from mkwrap.model import Model


class _Programs(Protocol):
    def load_program(
        self, name: str, specs: Sequence[str], maker: str | None, ranges: Sequence[str], shapes: str | None
    ) -> Named: ...


Words: TypeAlias = list[str] | None
"""An option that may be given several times."""

_TARGET = '"cpu", "cpu:x86-64-v3", "cuda", "cuda:sm_90", …; once per GPU architecture; default: where the inputs live.'
_TUNE = "full, quick (a second per kernel), later (left to `mkwrap tune`) or off."
_INPUT = (
    "A tensor argument: [name=]SHAPE:DTYPE[:BELOW], as 8x128:float32 or mask=8:int64:100; batch@8x128:float32 where the first "
    "dimension is dynamic; once per argument."
)
_DIM = "The range of a size that --input names: NAME=LOW..HIGH, as batch=1..64 or batch=1..; default: any size."
_SHAPES = "module:function or file.py:function that returns dynamic_shapes, as torch.export takes them."
_MAX_POINTS = f"Dynamic sizes: points to tune at, at most; default: {Options.max_points}."
_HINT = "Sizes to tune at, NAME=1,8,64; once per dynamic size: every combination; default: spread over the ranges."
_INPUTS = "module:function or file.py:function that returns the arguments: a tuple, or a pair of a tuple and a dict."


def compile_command(  # noqa: PLR0913, PLR0917 — the options of a command line
    program: Annotated[str, typer.Argument(help="model.pt2, module:function or file.py:function.", show_default=False)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The library; default: NAME.so.")] = None,
    target: Annotated[Words, typer.Option(help=_TARGET)] = None,
    specs: Annotated[Words, typer.Option("--input", help=_INPUT)] = None,
    maker: Annotated[str | None, typer.Option("--inputs", help=_INPUTS)] = None,
    dims: Annotated[Words, typer.Option("--dim", help=_DIM)] = None,
    shapes: Annotated[str | None, typer.Option("--dynamic-shapes", help=_SHAPES)] = None,
    hints: Annotated[Words, typer.Option("--hint", help=_HINT)] = None,
    max_points: Annotated[int | None, typer.Option(help=_MAX_POINTS)] = None,
    tune: Annotated[str, typer.Option(help=_TUNE)] = "full",
    force: Annotated[Words, typer.Option(help="KERNEL=VARIANT: take that variant, unmeasured.")] = None,
    tuning: Annotated[Path | None, typer.Option(help="A tuning record whose rows decide, unmeasured.")] = None,
    require_tuning: Annotated[
        bool, typer.Option("--require-tuning", help="A kernel without a row is an error.")
    ] = False,
    header: Annotated[Path | None, typer.Option(help="Write a typed C++ header of the library here.")] = None,
    save_tuning: Annotated[Path | None, typer.Option(help="Write the library's tuning record here.")] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Default variants, nothing measured.")] = False,
    threads: Annotated[int | None, typer.Option(help="CPU: threads to tune for; default: all.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Compilers at once; default: all processors.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Another cache directory than the default.")] = None,
    dump_dir: Annotated[Path | None, typer.Option(help="Write every stage's value as text here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compile a program to one shared library.

    PROGRAM is a file of torch.export.save, which brings its example inputs and dynamic sizes, or a function or nn.Module in
    a module. Its example inputs, whose shapes, strides and dtypes every call must have, come from --input, --inputs, or from
    example_inputs() in the same module. Dynamic sizes are those that --input names, or come from --dynamic-shapes, or from
    dynamic_shapes() beside example_inputs().

    mkwrap compile model.pt2 -o model.so

    mkwrap compile models.py:softmax --input 64x1024:float32

    mkwrap compile models.py:softmax --input rows@64x1024:float32 --dim rows=1..4096 --hint rows=1,64,4096
    """
    given: dict[str, object] = {"threads": threads, "jobs": jobs, "cache_dir": cache_dir, "dump_dir": dump_dir}
    given |= {"tuning": tuning, "hints": _hints(hints) if hints else None, "max_points": max_points}
    options = Options(
        tune=cast(TuneMode, tune),
        force=_forced(force or []),
        require_tuning=require_tuning,
        deterministic=deterministic,
        progress=False if as_json else None,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    _refuse_overwriting(output, (program, maker, shapes, tuning))
    # Programs are torch's: importing it is put off until there is one.
    programs = cast(_Programs, import_module("mkwrap.cli.programs"))
    named = programs.load_program(program, specs or [], maker, dims or [], shapes)
    _refuse_idle(named, program, {"--hint": bool(hints), "--max-points": max_points is not None})
    path = output if output is not None else Path(f"{named.stem}.so")
    _expect_places(path, header, save_tuning)
    model = _compiled(named, target or None, options)
    _write(model, path, header, save_tuning)
    _report(model, path, as_json)


def _compiled(named: Named, target: Sequence[str] | None, options: Options) -> Model:
    return mkwrap.compile(
        named.callee,
        named.args,
        example_kwargs=named.kwargs,
        dynamic_shapes=named.dynamic_shapes,
        target=target,
        options=options,
    )


def _expect_places(path: Path, header: Path | None, record: Path | None) -> None:
    """Refuse what cannot be written before anything is compiled for it."""
    expect_place(path, "the library")
    if header is not None:
        expect_place(header, "the header")
    if record is not None:
        expect_place(record, "the tuning record", TuningRecordError)


def _write(model: Model, path: Path, header: Path | None, record: Path | None) -> None:
    model.save(path)
    if header is not None:
        mkwrap.write_header(model, header)
    if record is not None:
        model.save_tuning(record)


def _report(model: Model, path: Path, as_json: bool) -> None:
    assert model.compilation is not None
    seconds = model.compilation.seconds
    if as_json:
        choices = {kernel: provenance.name.lower() for kernel, provenance in model.compilation.choices.items()}
        print_json({"path": str(path), "bytes": path.stat().st_size, "seconds": dict(seconds), "choices": choices})
        return
    longest = sorted(seconds, key=lambda stage: -seconds[stage])[:3]
    spent = ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in longest)
    show(model.report, Text(), Text(str(model.signature)))
    show(Text(f"{path}: {spell_bytes(path.stat().st_size)} in {sum(seconds.values()):.1f} s ({spent})", style="bold"))


def _refuse_overwriting(output: Path | None, sources: Sequence[str | Path | None]) -> None:
    """Refuse an output that is a file the compile reads: `file.py` of `file.py:function`, a .pt2 file, a record."""
    for source in sources:
        file = source if isinstance(source, Path) else Path(_file_of(source or ""))
        if output is not None and output.is_file() and file.is_file() and output.samefile(file):
            raise OptionError(f"--output is {str(output)!r}, which {str(source)!r} is read from; name another file")


def _refuse_idle(named: Named, program: str, given: Mapping[str, bool]) -> None:
    """Refuse options about dynamic sizes for a program that has none: they would change nothing."""
    idle = " and ".join(option for option, is_given in given.items() if is_given)
    if not idle or named.is_dynamic:
        return
    how = (
        "export it with dynamic_shapes"
        if program.endswith(".pt2")
        else "name one in --input, as rows@64x1024:float32 with --dim rows=1..4096, or give --dynamic-shapes"
    )
    raise OptionError(f"{idle}: {program} has no dynamic sizes to tune at; {how}, or leave {idle} away")


def _file_of(program: str) -> str:
    return program.rpartition(":")[0] or program


def _hints(words: Sequence[str]) -> dict[str, list[int]]:
    hints: dict[str, list[int]] = {}
    for text in words:
        name, _, listed = text.partition("=")
        if name in hints:
            raise OptionError(f"--hint names {name} twice; give all its sizes at once, as {name}=1,8,64")
        try:
            hints[name] = [int(size) for size in listed.split(",")]
        except ValueError as error:
            raise OptionError(f"--hint is {text!r}; expected NAME=SIZES, for example batch=1,8,64") from error
    return hints


def _forced(pairs: Sequence[str]) -> dict[str, str]:
    forced = {}
    for pair in pairs:
        kernel, equals, label = pair.partition("=")
        if not equals:
            raise OptionError(f"--force is {pair!r}; expected KERNEL=VARIANT")
        forced[kernel] = label
    return forced
