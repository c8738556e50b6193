"""The command line as a whole: exit codes, errors as text and as JSON, --debug, the older options."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from mkwrap.cli import app
from mkwrap.cli.output import AsJson
from mkwrap.errors import DriverError, InputError, InternalError, MkwrapError
from mkwrap.toolchain.cache import package_version
from mkwrap.toolchain.headers import include_dir

Run = Callable[..., tuple[int, str, str]]


def test_options_without_a_command(run: Run) -> None:
    assert run("--version") == (0, f"{package_version()}\n", "")
    assert run("--include-dir") == (0, f"{include_dir()}\n", "")
    code, out, _ = run()
    assert code == 0
    assert all(command in out for command in ("compile", "inspect", "bench", "cache", "record", "doctor"))


def test_a_line_that_cannot_be_read_ends_with_2(run: Run) -> None:
    for words in (["frobnicate"], ["inspect"], ["inspect", "--nothing"], ["bench", "a.so", "--seconds", "x"]):
        assert run(*words)[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (InputError("args[0]: no"), 2, "UserError"),
        (DriverError("no driver"), 3, "ToolchainError"),
        (InternalError("oh"), 4, "InternalError"),
        (ZeroDivisionError("division by zero"), 4, "InternalError"),
    ],
)
def test_errors_end_with_the_code_of_their_kind(
    error: Exception, code: int, kind: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(as_json: AsJson = False) -> None:
        del as_json
        raise error

    monkeypatch.setattr(app, "_COMMANDS", (("doctor", fail), ("fail", fail)))
    got, out, errors = run("fail")
    assert (got, out) == (code, "")
    assert str(error).splitlines()[0] in errors
    assert ("This is a defect in mkwrap" in errors) == (code == 4)
    assert "Traceback" not in errors
    got, out, _ = run("fail", "--json")
    assert (got, json.loads(out)["error"]) == (
        code,
        {"kind": kind, "type": type(error).__name__, "message": str(error)},
    )
    with pytest.raises(type(error)):
        run("fail", "--debug")
    assert isinstance(error, MkwrapError) == (type(error) is not ZeroDivisionError)


def test_messages_are_no_markup(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DriverError("pointwise[unroll=1] [bold]failed[/bold]")

    monkeypatch.setattr(app, "_COMMANDS", (("doctor", fail), ("fail", fail)))
    assert "pointwise[unroll=1] [bold]failed[/bold]" in run("fail")[2]


def test_warnings_of_others_are_shown_as_ever(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> None:
        warnings.warn("of the user's module", UserWarning, stacklevel=1)

    monkeypatch.setattr(app, "_COMMANDS", (("doctor", warn), ("warn", warn)))
    with pytest.warns(UserWarning, match="of the user's module"):
        assert run("warn") == (0, "", "")


def test_the_module_is_the_program(tmp_path: Path) -> None:
    printed = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        for command in ([sys.executable, "-m", "mkwrap"], [str(Path(sys.executable).with_name("mkwrap"))])
    ]
    assert printed == [f"{package_version()}\n"] * 2


def test_commands_that_need_no_torch_do_not_import_it(tmp_path: Path) -> None:
    code = "import sys; from mkwrap.cli.app import main; assert main(sys.argv[1:]) == 0; print('torch' in sys.modules)"
    words = ["cache", "show", "--cache-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
