"""What all commands print: JSON for programs; tables, lines and errors for people."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console, RenderableType
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]

# Where nobody looks at a terminal (a pipe, a file) rich would wrap at 80.
_PIPE_WIDTH = 120
_ISSUES = "This is a defect in mkwrap, not in your program: please report it with what --debug shows."


def print_json(value: object) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print plain lines on standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def show(*values: RenderableType) -> None:
    """Print tables and texts for people on standard output, as wide as the terminal."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for value in values:
            console.print(value)
        return
    stream = io.StringIO()
    console = Console(file=stream, width=_PIPE_WIDTH, highlight=False)
    for value in values:
        console.print(value)
    print_lines(line.rstrip() for line in stream.getvalue().splitlines())


@contextmanager
def warnings_printed() -> Iterator[None]:
    """Print mkwrap's own warnings as its errors are, each once; without its source line, which a warning of Python's has."""
    package = Path(__file__).parents[1]
    said: set[str] = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show_warning(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if Path(filename).is_relative_to(package):
                if str(message) in said:
                    return
                said.add(str(message))
                _print_message("warning: ", "bold yellow", str(message))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show_warning
        yield


def print_error(error: Exception, *, expected: bool) -> None:
    """Print an error's message on standard error."""
    message = str(error) if expected else f"{type(error).__name__}: {error}\n{_ISSUES}"
    _print_message("", "bold red", message)


def _print_message(kind: str, style: str, message: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble((f"mkwrap: {kind}", style), message))
