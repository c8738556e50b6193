"""The typed C++ header of a compiled library: the user's names, in a program that agrees with Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.python.wrapper.dynamic_selections import tables
from tests.python.wrapper.selections import cpu_description
from torch.export import Dim

import mkwrap
from mkwrap.codegen.wrapper import wrap
from mkwrap.codegen.wrapper.header import render_header
from mkwrap.errors import CacheError

pytestmark = [pytest.mark.toolchain, pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")]
ROOT = Path(__file__).parents[3]

MAIN = """
#include <cstdio>
#include "model.hpp"
int main(int, char** arguments) {
  model::Model scores(arguments[1]);
  model::Sizes sizes;
  sizes.batch = 3;
  alignas(64) static std::int64_t ids[3 * 4];
  alignas(64) static float weight[8];
  alignas(64) static float out[3 * 4];
  for (int i = 0; i < 12; ++i) ids[i] = i;
  for (int i = 0; i < 8; ++i) weight[i] = 0.5F * static_cast<float>(i);
  model::Inputs inputs;
  inputs.ids = ids;
  inputs.options_weight = weight;
  scores.run(sizes, inputs, {out});
  std::fwrite(out, sizeof(float), 12, stdout);
}
"""


def _scores(ids: torch.Tensor, options: dict[str, torch.Tensor]) -> torch.Tensor:
    return ids.float() * options["weight"][:4] + 1


def _arguments(batch: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return torch.arange(4 * batch).reshape(batch, 4), {"weight": torch.arange(8) * 0.5}


def test_a_program_of_named_arguments_agrees_with_python(tmp_path: Path) -> None:
    options = mkwrap.Options(tune="off", cache_dir=tmp_path / "cache")
    shapes = ({0: Dim("batch", min=1, max=64)}, {"weight": {}})
    model = mkwrap.compile(_scores, _arguments(8), dynamic_shapes=shapes, target="cpu", options=options)
    model.save(tmp_path / "model.so")
    mkwrap.write_header(model, tmp_path / "model.hpp")
    (tmp_path / "main.cpp").write_text(MAIN)
    sources = [str(tmp_path / "main.cpp"), *map(str, (ROOT / "csrc" / "loader").glob("*.cpp"))]
    includes = ["-I", str(mkwrap.include_dir()), "-I", str(ROOT / "csrc"), "-I", str(tmp_path)]
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", *includes]
    subprocess.run(["g++", *flags, *sources, "-ldl", "-o", str(tmp_path / "main")], check=True)
    done = subprocess.run([tmp_path / "main", tmp_path / "model.so"], check=True, capture_output=True)
    got = np.frombuffer(done.stdout, np.float32).reshape(3, 4)
    assert np.array_equal(got, model(*_arguments(3)).numpy())
    with pytest.raises(CacheError, match="cannot write the header"):
        mkwrap.write_header(model, tmp_path / "nowhere" / "model.hpp")


def test_a_header_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    # tests/cpp/typed_test.cpp includes it.
    manifest = json.loads(wrap(tables().selection(), cpu_description()).manifest)
    golden("wrapper/tables.hpp", render_header(manifest, "tables"))


def test_names_that_cpp_does_not_take_are_changed() -> None:
    tensor = {"dtype": "bfloat16", "shape": ["s0"], "strides": [1], "mutated": False}
    names = ("class", "2x", "a.b", "a_b", "sizes")
    manifest: dict[str, object] = {
        "symbols": [{"name": "s0", "low": 1, "high": 2**63 - 1}],
        "call": {"parameters": list(names)},
        "inputs": [{**tensor, "name": f"t{k}", "path": f"args[{k}]"} for k in range(len(names))],
        "outputs": [],
    }
    text = render_header(manifest, "my model-2")
    assert "namespace my_model_2 {" in text
    for name in ("class_", "m2x", "a_b", "a_b_2", "sizes_"):
        assert f"const void* {name} = nullptr;  // bfloat16 s0" in text
    assert "std::int64_t s0 = 0;  // 1 to no bound" in text
