"""The table of commands, and what becomes of an error: one clear message and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from mkwrap.cli.bench import bench
from mkwrap.cli.cache import cache_app
from mkwrap.cli.compile import compile_command
from mkwrap.cli.doctor import doctor
from mkwrap.cli.inspect import inspect_command
from mkwrap.cli.output import print_error, print_json, print_lines, warnings_printed
from mkwrap.cli.record import record_app
from mkwrap.cli.tune import tune_command
from mkwrap.errors import InternalError, MkwrapError, ToolchainError, UserError
from mkwrap.toolchain.cache import package_version
from mkwrap.toolchain.headers import cmake_dir, include_dir

USER_FAULT, TOOLCHAIN_FAULT, INTERNAL_FAULT = 2, 3, 4
"""Exit codes by the kind of error; 2 is also what a command line that cannot be read ends with."""

_COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("compile", compile_command),
    ("inspect", inspect_command),
    ("tune", tune_command),
    ("bench", bench),
    ("doctor", doctor),
)
_GROUPS: tuple[tuple[str, typer.Typer], ...] = (("cache", cache_app), ("record", record_app))

_HELP = """Compile PyTorch programs ahead of time to one shared library, choosing kernels by measurement.

Exit codes: 0 done · 2 something you can change · 3 a compiler, driver or file system · 4 a defect of mkwrap."""


def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print mkwrap's version.")] = False,
    include: Annotated[bool, typer.Option("--include-dir", help="Print the folder of the C and C++ headers.")] = False,
    cmake: Annotated[
        bool, typer.Option("--cmake-dir", help="Print the folder to pass to CMake as mkwrap_DIR.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
) -> None:
    del debug  # `main` takes it off the line, wherever it stands.
    asked = [(cmake, cmake_dir), (include, include_dir), (version, package_version)]
    print_lines(str(answer()) for wanted, answer in asked if wanted)
    if context.invoked_subcommand is None and not any(wanted for wanted, _ in asked):
        print_lines([context.get_help()])


def command_line() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="mkwrap",
        help=_HELP,
        add_completion=False,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_top,
    )
    for name, command in _COMMANDS:
        app.command(name)(command)
    for name, group in _GROUPS:
        app.add_typer(group, name=name)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        with warnings_printed():
            command_line()(args=[word for word in words if word != "--debug"], prog_name="mkwrap")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if debug:
            raise
        if "--json" in words:
            print_json({"error": {"kind": _kind(error).__name__, "type": type(error).__name__, "message": str(error)}})
        print_error(error, expected=isinstance(error, MkwrapError))
        return _EXIT_CODES[_kind(error)]
    return 0


def run() -> NoReturn:
    """Run the command line of this process: the installed program `mkwrap`."""
    sys.exit(main())


_EXIT_CODES: dict[type[MkwrapError], int] = {
    UserError: USER_FAULT,
    ToolchainError: TOOLCHAIN_FAULT,
    InternalError: INTERNAL_FAULT,
}


def _kind(error: Exception) -> type[MkwrapError]:
    """Return whose fault an error is; what mkwrap did not foresee is its own."""
    return next((kind for kind in _EXIT_CODES if isinstance(error, kind)), InternalError)
