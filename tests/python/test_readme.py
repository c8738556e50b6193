"""What README.md shows runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
MODELS = "import torch\n\ndef softmax(x):\n    return torch.softmax(x, -1)\n"

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def environment(folder: Path) -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    own = {"MKWRAP_CACHE_DIR": str(folder / "cache"), "PATH": f"{programs}:{os.environ['PATH']}"}
    return {**os.environ, **own}


def test_the_python_examples_run_one_after_another(tmp_path: Path) -> None:
    program = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "reduction_0 ×1" in done.stdout
    assert "RECORD" in done.stdout


def test_the_command_lines_run_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    script = "\n".join(block for block in blocks("sh") if "mkwrap compile" in block)
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"model.so", "again.so", "model.jsonl", "parts", "rows.so"} <= {path.name for path in tmp_path.iterdir()}
