"""C++ that knows only the installed CMake package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import mkwrap
from mkwrap import Options

CMAKE = """
cmake_minimum_required(VERSION 3.20)
project(consumer LANGUAGES CXX)
find_package(mkwrap CONFIG REQUIRED)
mkwrap_add_model(the_model "{library}")
add_executable(linked "{source}")
target_link_libraries(linked PRIVATE mkwrap::mkwrap the_model)
"""


def cmake() -> str:
    own = Path(sys.executable).with_name("cmake")
    found = str(own) if own.exists() else shutil.which("cmake")
    if found is None:
        pytest.skip("no cmake on this machine")
    return found


def block(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.layer_norm(F.linear(x, w, b), (48,))) * torch.softmax(x.sum(-1, keepdim=True), 0)


@pytest.mark.toolchain
def test_r9_a_linked_cpp_program_agrees_with_python_bit_for_bit(tmp_path: Path, quick: Options) -> None:
    inputs = (torch.randn(33, 40), torch.randn(48, 40), torch.randn(48))
    model = mkwrap.compile(block, inputs, target="cpu", options=quick)
    library = tmp_path / "block.so"
    model.save(library)
    source = Path(__file__).with_name("linked.cpp")
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.format(library=library, source=source))
    configure = [cmake(), "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-Dmkwrap_DIR={mkwrap.cmake_dir()}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run([cmake(), "--build", str(tmp_path / "build")], check=True, capture_output=True)
    files = [tmp_path / f"input{k}" for k in range(len(inputs))]
    for file, tensor in zip(files, inputs, strict=True):
        file.write_bytes(tensor.numpy().tobytes())
    subprocess.run([tmp_path / "build" / "linked", tmp_path / "result", *files], check=True)
    result = torch.frombuffer(bytearray((tmp_path / "result").read_bytes()), dtype=torch.float32).view(33, 48)
    assert torch.equal(result, model(*inputs))
