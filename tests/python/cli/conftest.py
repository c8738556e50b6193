"""A compiled library, its record and its cache: made once by the command line for all tests of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from mkwrap.cli.app import main

PROGRAMS = """
import torch

def fn(x, y=None):
    z = torch.softmax(x, -1)
    return z if y is None else z + y

class Double(torch.nn.Module):
    def forward(self, x):
        return x * 2

class Needy(torch.nn.Module):
    def __init__(self, size):
        super().__init__()

def table(i, w):
    return w[i]

def example_inputs():
    return torch.ones(4, 8)

def pair():
    return (torch.ones(4, 8),), {"y": torch.ones(8)}

number = 3
"""


class Made(NamedTuple):
    """What `mkwrap compile` wrote."""

    library: Path
    record: Path
    cache: Path
    programs: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Compile softmax of 64×1024 for two threads, measured quickly."""
    folder = tmp_path_factory.mktemp("cli")
    made = Made(folder / "fn.so", folder / "fn.jsonl", folder / "cache", folder / "programs.py")
    made.programs.write_text(PROGRAMS)
    words = ["compile", f"{made.programs}:fn", "--input", "64x1024:float32", "-o", str(made.library), "--tune", "quick"]
    options = ["--threads", "2", "--cache-dir", str(made.cache), "--save-tuning", str(made.record), "--json"]
    assert main([*words, *options]) == 0
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; returns exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 1024)
