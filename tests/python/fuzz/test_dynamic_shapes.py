"""Random programs with dynamic sizes equal eager at thousands of shapes, or refuse them, and touch no memory but theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = 10
SHAPES = 2000
_ROOT = Path(__file__).parents[3]


def _runtime(name: str) -> str:
    """Return the path of a compiler's runtime library."""
    asked = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize("part", range(2))
def test_c21_random_programs_at_random_shapes_under_address_sanitizer(part: int, tmp_path: Path) -> None:
    runtime = _runtime("libasan.so")
    if not Path(runtime).is_absolute():
        pytest.skip("g++ comes without AddressSanitizer here")
    compiler = tmp_path / "instrumented-g++"
    compiler.write_text('#!/bin/sh\nexec g++ -fsanitize=address -fno-omit-frame-pointer "$@"\n')
    compiler.chmod(0o755)
    # Torch's own leaks at exit are not ours to report; freed memory is kept for a short while only.
    settings = {
        "LD_PRELOAD": f"{runtime} {_runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",
    }
    count = PROGRAMS // 2
    numbers = [str(n) for n in (part * count, count, SHAPES)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.python.fuzz.dynamic_run", str(compiler), str(tmp_path / "cache"), *numbers],
        env={**os.environ, **settings},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-5000:]}"
    lines = done.stdout.splitlines()
    assert len(lines) == count, done.stdout
    for line in lines:
        called, refused = int(line.split()[2]), int(line.split()[-2])
        assert called + refused == SHAPES, line
        # Both happen often, or the test would show nothing.
        assert called > SHAPES // 3, line
        assert refused > SHAPES // 20, line
