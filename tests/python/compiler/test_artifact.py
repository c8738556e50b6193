"""The library of a compile: what is in it, what it needs, and that it runs without Python."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.forced import Forced, candidates_of, forced_models, kernels_of

import mkwrap
from mkwrap import Options
from mkwrap.stages import BufferArgument, Source, WorkspaceArgument
from mkwrap.targets import resolve
from mkwrap.variants import render

pytestmark = pytest.mark.toolchain

# What the loader adds to every C library; libgomp is the OpenMP runtime.
SYSTEM = {"libc.so.6", "libm.so.6", "libgomp.so.1", "ld-linux-x86-64.so.2", "linux-vdso.so.1", "libpthread.so.0"}


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(library: Path) -> dict[str, str]:
    """Return the names in the symbol table and their types."""
    lines = [line.split() for line in output("nm", library).splitlines()]
    return {words[-1]: words[-2] for words in lines}


def two_kernels(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.softmax(x, -1), (x.t() * 2).contiguous()


def test_c2_a_forced_library_holds_exactly_the_forced_kernels(two_threads: Options) -> None:
    x = torch.randn(64, 1024)
    libraries = list(forced_models(two_kernels, (x,), two_threads))
    entries = [{s.launches[0].entry for s in forced.sources.values()} for forced in libraries]
    assert len({frozenset(names) for names in entries}) == len(libraries) >= 3
    for forced, names in zip(libraries, entries, strict=True):
        found = {name for name in symbols(forced.model.path) if name.startswith("mkw_") and name != "mkw_get_api"}
        assert found >= names
        assert not found & (set().union(*entries) - names), forced.label
        launches = [launch for kernel in kernels_of(forced.model) for launch in kernel["launches"]]
        assert {launch["entry"] for launch in launches} == names


_PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "mkwrap/abi.h"

int main(int argc, char** argv) {
  static float x[64 * 1024], y[64 * 1024];
  FILE* file = fopen(argv[2], "rb");
  if (argc < 4 || file == NULL || fread(x, 1, sizeof x, file) != sizeof x) return 1;
  fclose(file);
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return fprintf(stderr, "%s\\n", dlerror()), 2;
  const mkw_api* api = ((mkw_get_api_function)dlsym(library, "mkw_get_api"))(MKW_ABI_VERSION);
  mkw_model* model = NULL;
  mkw_context* context = NULL;
  if (api->model_create(0, &model, NULL) || api->context_create(model, &context, NULL)) return 3;
  int64_t shape[2] = {64, 1024};
  mkw_tensor in = {x, {MKW_DEVICE_CPU, 0}, 2, {MKW_FLOAT, 32, 1}, shape, NULL, 0}, out = in;
  out.data = y;
  if (api->run(context, &in, &out, NULL)) return fprintf(stderr, "%s\\n", api->last_error(context)->message), 4;
  file = fopen(argv[3], "wb");
  fwrite(y, 1, sizeof y, file);
  fclose(file);
  // Nothing of Python may be in this process: the library has not brought it.
  char line[1024];
  for (file = fopen("/proc/self/maps", "r"); fgets(line, sizeof line, file);)
    if (strstr(line, "python") || strstr(line, "torch")) return fprintf(stderr, "%s", line), 5;
  return 0;
}
"""


def test_c2_a_forced_library_runs_without_python(two_threads: Options, tmp_path: Path) -> None:
    (tmp_path / "run.c").write_text(_PROGRAM)
    program = tmp_path / "run"
    output("gcc", "-O1", "-std=gnu11", "-I", mkwrap.include_dir(), tmp_path / "run.c", "-o", program, "-ldl")
    x = torch.randn(64, 1024)
    x.numpy().tofile(tmp_path / "x")
    for forced in forced_models(lambda x: torch.softmax(x, -1), (x,), two_threads):
        output(program, forced.model.path, tmp_path / "x", tmp_path / "y")
        assert (tmp_path / "y").read_bytes() == forced.model(x).numpy().tobytes(), forced.label


def test_r2_a_library_needs_the_system_alone_and_exports_one_function(two_threads: Options, tmp_path: Path) -> None:
    x = torch.randn(64, 1024)
    mkwrap.compile(two_kernels, (x,), target="cpu", options=two_threads).save(tmp_path / "parallel.so")
    mkwrap.compile(lambda x: x + 1, (x[0, :8].clone(),), target="cpu", options=two_threads).save(tmp_path / "small.so")
    for name, runtime in (("parallel.so", True), ("small.so", False)):
        listed = {Path(line.split()[0]).name for line in output("ldd", tmp_path / name).splitlines()}
        assert listed <= SYSTEM
        assert ("libgomp.so.1" in listed) == runtime
        exported = output("nm", "-D", "--defined-only", tmp_path / name).split()
        assert exported[1:] == ["T", "mkw_get_api"]
        wanted = output("nm", "-D", "--undefined-only", tmp_path / name)
        assert not re.search(r"\b(Py|_Py|at::|c10|_ZN)", wanted)


def test_c42_models_of_equal_kernel_names_run_their_own_code(quick: Options, tmp_path: Path) -> None:
    x = torch.randn(8, 40)
    functions = [lambda x, k=k: torch.softmax(x * k, -1) + k for k in range(1, 4)]
    models = []
    for k, fn in enumerate(functions):
        mkwrap.compile(fn, (x,), target="cpu", options=quick).save(tmp_path / f"{k}.so")
        models.append(mkwrap.load(tmp_path / f"{k}.so"))
    assert len({tuple(kernel["name"] for kernel in kernels_of(model)) for model in models}) == 1
    for _ in range(2):
        for model, fn in zip(models, functions, strict=True):
            torch.testing.assert_close(model(x), fn(x))


# ── C17: what the persistent variant keeps, the looped one computes or loads again ───────────────────────────────────────


def expensive(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(torch.tanh(x) * torch.erf(x), -1)


def takes(source: Source) -> tuple[list[int], int]:
    """Return the buffers a variant takes, and how many workspaces."""
    args = [arg for launch in source.launches for arg in launch.args]
    buffers = sorted({arg.parameter for arg in args if isinstance(arg, BufferArgument)})
    return buffers, sum(isinstance(arg, WorkspaceArgument) for arg in args)


def by_keeping(x: torch.Tensor, options: Options) -> dict[str, Forced]:
    """Return the variants of `expensive`, by what they keep between the loops over a row."""
    found: dict[str, Forced] = {}
    for forced in forced_models(expensive, (x,), options):
        (source,) = forced.sources.values()
        params = dict(source.variant.params)
        found.setdefault(str(params.get("keep", "split" if "split" in params else "nothing")), forced)
    return found


def test_c17_the_persistent_variant_takes_no_workspace_and_stores_results_alone(two_threads: Options) -> None:
    short, long = torch.randn(64, 1024), torch.randn(3, 70_001)
    persistent = by_keeping(short, two_threads)["stack"]
    found = by_keeping(long, two_threads)
    stored, computed = found["workspace"], found["nothing"]
    for forced, x in ((persistent, short), (stored, long), (computed, long)):
        torch.testing.assert_close(forced.model(x), expensive(x), rtol=1e-5, atol=1e-6)
    (row,), (looped,), (again,) = (tuple(forced.sources.values()) for forced in (persistent, stored, computed))
    # One entry: the same buffers; the workspace is the looped variant's own.
    assert takes(row) == takes(again) == ([0, 1], 0)
    assert takes(looped) == ([0, 1], 1)
    assert persistent.model.workspace_bytes == computed.model.workspace_bytes == 0
    assert stored.model.manifest["memory"]["workspace"] >= 70_001 * 4  # type: ignore[index]
    # The persistent one computes the expensive value once and writes the result once; the one that keeps nothing computes
    # it in every loop.
    assert [source.text.count("mkw::tanh(") for source in (row, looped, again)] == [1, 1, 3]
    assert [len(re.findall(r"mkw::store\w*\([^;]*arg1", source.text)) for source in (row, looped, again)] == [1, 1, 1]


def test_c17_the_persistent_triton_variant_loads_and_stores_once(quick: Options) -> None:
    pytest.importorskip("triton")
    x = torch.empty(4096, 2048)
    target = resolve("cuda:sm_90", quick)
    sources = [
        s for written in render(candidates_of(expensive, (x,), quick, target.name), target).values() for s in written
    ]
    assert all(isinstance(source, Source) for source in sources)
    by_template: dict[str, list[Source]] = {}
    for source in sources:
        if isinstance(source, Source):
            by_template.setdefault(source.variant.template, []).append(source)
    assert {"persistent", "looped"} <= by_template.keys()
    for source in by_template["persistent"]:
        assert (source.text.count("tl.load("), source.text.count("tl.store(")) == (1, 1)
        assert (takes(source), source.workspace_bytes) == (([0, 1], 0), 0)
    for source in by_template["looped"]:
        assert source.text.count("tl.load(") >= 2
        assert takes(source)[0] == [0, 1]


def test_c17_forced_triton_variants_become_cubins(quick: Options) -> None:
    pytest.importorskip("triton")
    x = torch.empty(256, 512)
    (variants,) = candidates_of(expensive, (x,), quick, "cuda:sm_90").variants.items()
    kernel, found = variants
    for template in ("persistent", "looped"):
        label = next(variant.label for variant in found if variant.template == template)
        model = mkwrap.compile(expensive, (x,), target="cuda:sm_90", options=replace(quick, force={kernel: label}))
        (row,) = kernels_of(model)
        assert (row["winner"], row["reason"], row["workspace_bytes"]) == (label, "forced", 0)
