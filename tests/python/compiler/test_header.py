"""The typed C++ header of a compiled library: the user's names, in a program that agrees with Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.python.wrapper.dynamic_selections import tables
from tests.python.wrapper.selections import cpu_description
from torch.export import Dim

import mkwrap
from mkwrap.codegen.wrapper import wrap
from mkwrap.codegen.wrapper.cpp_names import KEYWORDS, MACROS
from mkwrap.codegen.wrapper.header import render_header
from mkwrap.errors import CacheError, LibraryFormatError

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


TENSOR = {"dtype": "bfloat16", "shape": ["s0"], "strides": [1], "mutated": False}


def _manifest(names: Sequence[str], outputs: Sequence[str] = ()) -> dict[str, object]:
    return {
        "symbols": [{"name": "s0", "low": 1, "high": 2**63 - 1}],
        "call": {"parameters": list(names)},
        "inputs": [{**TENSOR, "name": f"t{k}", "path": f"args[{k}]"} for k in range(len(names))],
        "outputs": [{**TENSOR, "kind": "buffer", "name": name} for name in outputs],
    }


def _compiles(text: str, folder: Path) -> None:
    (folder / "named.hpp").write_text(text)
    headers = "".join(
        f"#include <{name}>\n" for name in ("cmath", "csignal", "cstring", "ctime", "unistd.h", "strings.h")
    )
    (folder / "named.cpp").write_text(headers + '#include "named.hpp"\n')
    flags = ["-std=gnu++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(mkwrap.include_dir())]
    subprocess.run(["g++", *flags, str(folder / "named.cpp")], check=True)


def test_names_that_cpp_does_not_take_are_changed() -> None:
    text = render_header(_manifest(("class", "2x", "a.b", "a_b", "sizes")), "my model-2")
    assert "namespace my_model_2 {" in text
    for name in ("class_", "m2x", "a_b", "a_b_2", "sizes_"):
        assert f"const void* {name} = nullptr;  // bfloat16 s0" in text
    assert "std::int64_t s0 = 0;  // 1 to no bound" in text


SPELLINGS = ("2*((s0 + 3) // 4) + s0 % 3", "2*FloorDiv(s0 + 3, 4) + Mod(s0, 3)")


def test_divisions_are_spelt_for_cpp_either_way_they_are_written(tmp_path: Path) -> None:
    texts = []
    for size in SPELLINGS:
        manifest = _manifest(("x",), ["y"])
        texts.append(
            render_header({**manifest, "outputs": [{**TENSOR, "kind": "buffer", "name": "y", "shape": [size]}]}, "m")
        )
    operators, functions = (text.replace(size, "") for text, size in zip(texts, SPELLINGS, strict=True))
    assert operators == functions
    assert "runtime::floor_div(" in operators
    assert "runtime::floor_mod(" in operators
    _compiles(texts[0], tmp_path)


def test_names_that_meet_in_one_struct_are_told_apart(tmp_path: Path) -> None:
    text = render_header(_manifest(("x", "x_strides", "out0", "y_strides", "y"), ["out0"]), "meeting")
    for name in ("x", "x_strides_2", "out0", "y_strides", "y_2"):
        assert f"const void* {name} = nullptr;" in text
    assert "  void* out0_2 = nullptr;" in text
    _compiles(text, tmp_path)


def test_keywords_macros_and_names_of_c_are_no_names_of_a_header(tmp_path: Path) -> None:
    words = (*sorted(KEYWORDS | MACROS), "Sizes", "Inputs", "Outputs", "Shapes", "Model")
    _compiles(render_header(_manifest(words), "linux"), tmp_path)
    names = (
        "time",
        "index",
        "gamma",
        "log10",
        "log1p",
        "strlen",
        "memcpy",
        "mkw_tensor",
        "size_t",
        "typeid",
        "errno",
        "mkwrap",
    )
    texts = [render_header(_manifest(()), name) for name in names]
    assert all(f"namespace {name}_ {{" in text for name, text in zip(names, texts, strict=True))
    _compiles("\n".join(texts), tmp_path)
    assert "namespace cnn {" in render_header(_manifest(()), "cnn")


@pytest.mark.parametrize("size", ["s0 +", "s0\0", None])
def test_what_is_no_size_is_refused(size: object) -> None:
    manifest = {**_manifest(()), "inputs": [{**TENSOR, "name": "t0", "path": "args[0]", "shape": [size]}]}
    with pytest.raises(LibraryFormatError, match="manifest has"):
        render_header(manifest, "broken")
