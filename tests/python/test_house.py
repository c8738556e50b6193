"""The shape of the project, held: layers, no cycles, sizes, one reader of the environment, no borrowed internals."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "mkwrap"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("options", "fresh"),
    ("ir",),
    ("stages", "evidence", "artifact", "pytree"),
    (
        *("capture", "dims", "guards", "emptiness", "symbols", "traced", "translate", "aliasing"),
        *("examples", "decompose", "fit", "fold", "origins", "results", "lower", "fuse"),
    ),
    ("codegen",),
    ("_C",),
    ("toolchain",),
    ("targets",),
    ("points", "hints", "spaces", "variants", "progress", "journal", "sizes"),
    ("tune",),
    ("report", "calls", "model", "retune", "explanation", "header"),
    ("compiler",),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the bottom: a room imports rooms of lower rows, or of its own row."""

CODEGEN_MAY_IMPORT = {"ir", "stages", "artifact", "errors", "codegen"}
FILE_LINES = 400
FUNCTION_LINES = 60
SPINE_LINES = 120  # a third of it imports every stage (docs/plan.md)


def tracked(*patterns: str) -> list[Path]:
    """List the files git knows."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("path", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


def module_name(path: Path) -> str:
    base = ROOT if path.is_relative_to(ROOT / "codegen") else PACKAGE
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__" or len(parts) == 1)


def sources() -> dict[str, ast.Module]:
    """Parse every module of the package, by its name below mkwrap."""
    paths = tracked("python/mkwrap/*.py", "codegen/*.py")
    return {module_name(path): ast.parse(path.read_text()) for path in paths}


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the mkwrap modules a module imports at run time, below mkwrap."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mkwrap":
            base = node.module.removeprefix("mkwrap").removeprefix(".")
            for alias in node.names:
                yield f"{base}.{alias.name}".removeprefix(".")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("mkwrap.") for a in node.names if a.name.startswith("mkwrap."))


def resolved(name: str, modules: dict[str, ast.Module]) -> str | None:
    """Return the module an imported name lives in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


MODULES = sources()
ROW = {room: k for k, row in enumerate(LAYERS) for room in row}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_imports_upward(name: str) -> None:
    room = name.split(".", maxsplit=1)[0]
    assert room in ROW, f"{name} is in no layer"
    for target in imported(MODULES[name]):
        other = target.split(".")[0]
        if other in ROW:
            assert ROW[other] <= ROW[room], f"{name} imports {target}, a layer above"
        if room == "codegen":
            assert other in CODEGEN_MAY_IMPORT, f"{name} imports {target}"


def test_no_import_cycles() -> None:
    graph = {
        name: {r for t in imported(tree) if (r := resolved(t, MODULES)) is not None and r != name}
        for name, tree in MODULES.items()
    }
    graph = {name: {t for t in targets if not name.startswith(f"{t}.")} for name, targets in graph.items()}
    list(TopologicalSorter(graph).static_order())


def test_no_import_below_the_top_of_a_file() -> None:
    late = []
    for name, tree in MODULES.items():
        if name == "__init__":
            continue  # its names are lazy on purpose: importing mkwrap must not import torch
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                late += [f"{name}:{n.lineno}" for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert late == []


def test_file_sizes() -> None:
    paths = tracked("python/*.py", "codegen/*.py", "csrc/*", "scripts/*", "examples/*", "benchmarks/*.py", "tests/*")
    long = {str(p.relative_to(ROOT)): n for p in paths if (n := len(p.read_text().splitlines())) > FILE_LINES}
    assert long == {}
    assert len((PACKAGE / "compiler.py").read_text().splitlines()) <= SPINE_LINES


def test_function_sizes() -> None:
    # Functions in C++: readability-function-size in .clang-tidy.
    long = [
        f"{path.relative_to(ROOT)}:{node.name} ({node.end_lineno - node.lineno + 1})"
        for path in tracked("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert long == []


def test_only_options_reads_the_environment() -> None:
    readers = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers <= {"options"}


def test_no_private_modules_of_torch_inductor() -> None:
    # A split literal, so that this file does not find itself.
    word = "torch._" + "inductor"
    users = [str(p) for p in tracked("*.py", "*.h", "*.cpp") if word in p.read_text() and p != Path(__file__)]
    assert [u for u in users if "benchmarks" not in u] == []


def test_runtime_headers_include_only_what_a_model_may_need() -> None:
    standard = re.compile(r"<[a-z_0-9]+(\.h)?>|<sys/[a-z]+\.h>")
    allowed = re.compile(
        rf"{standard.pattern}|<cuda\.h>|<dlpack/dlpack\.h>|<mkwrap/[a-z_]+\.(h|hpp)>|\"[a-z_/]+\.(h|hpp)\""
    )
    for path in tracked("csrc/include/mkwrap/*"):
        for line in path.read_text().splitlines():
            if line.startswith("#include"):
                assert allowed.fullmatch(line.split()[1]), f"{path.name}: {line}"
