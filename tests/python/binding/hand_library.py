"""Libraries of the C ABI with a hand-written body, so that the binding can be tested without the compiler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INCLUDE = Path(__file__).parents[3] / "csrc" / "include"

_DTYPES = {
    "float32": ("MKW_FLOAT", 32),
    "float64": ("MKW_FLOAT", 64),
    "bfloat16": ("MKW_BFLOAT", 16),
    "int64": ("MKW_INT", 64),
    "bool": ("MKW_BOOL", 8),
}


@dataclass(frozen=True)
class Tensor:
    """One input or output; strides default to row-major."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    strides: tuple[int, ...] | None = None
    alignment: int = 4
    mutated: bool = False

    @property
    def stepped(self) -> tuple[int, ...]:
        """Return the strides."""
        if self.strides is not None:
            return self.strides
        steps = [1]
        for size in reversed(self.shape[1:]):
            steps.insert(0, steps[0] * max(size, 1))
        return tuple(steps[: len(self.shape)])


@dataclass(frozen=True)
class HandLibrary:
    """A library in the making. `body` sees `in[k]`, `out[k]` (float*, or cast) and returns a status of the kernel."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    body: str
    manifest: dict[str, object] = field(default_factory=dict)
    version: str = "MKW_ABI_VERSION"
    traffic: int = 64
    features: Sequence[str] = ()


def build(library: HandLibrary, path: Path, *flags: str) -> Path:
    """Compile and link the library to path."""
    source = path.with_suffix(".cpp")
    source.write_text(_text(library))
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{INCLUDE}", str(source)]
    subprocess.run([*command, "-o", str(path), *flags], check=True, timeout=120)
    return path


def _infos(name: str, root: str, tensors: Sequence[Tensor]) -> str:
    lines = []
    rows = []
    for k, tensor in enumerate(tensors):
        code, bits = _DTYPES[tensor.dtype]
        for what, values in (("shape", tensor.shape), ("strides", tensor.stepped)):
            lines.append(f"const int64_t {name}{k}_{what}[] = {{{', '.join(map(str, (*values, 0)))}}};")
        rows.append(
            f'{{"{name}{k}", "{root}[{k}]", {{{code}, {bits}, 1}}, {len(tensor.shape)}, {name}{k}_shape, '
            f"{name}{k}_strides, {tensor.alignment}, {int(tensor.mutated)}}},"
        )
    return "\n".join([*lines, f"const mkw_tensor_info k_{name}s[] = {{", *rows, "{}};"])


def _text(library: HandLibrary) -> str:
    features = "".join(f'"{name}", ' for name in library.features)
    manifest = json.dumps(json.dumps(library.manifest, sort_keys=True))
    return f"""
#include <unistd.h>
#include "mkwrap/cpu_model.h"
namespace {{
using namespace mkwrap::runtime;
{_infos("input", "args", library.inputs)}
{_infos("output", "output", library.outputs)}
const char* const k_features[] = {{{features}nullptr}};
const CpuPlan k_plan = {{"test-arch", k_features, {len(library.features)}, 64}};
const char k_manifest[] = {manifest};
int32_t body(float* const* in, float* const* out, mkw_context* context) {{ {library.body} }}
mkw_status model_create(int32_t device, mkw_model** model, mkw_error* error) {{
  return create_model(k_plan, device, model, error);
}}
mkw_status context_create(mkw_model* model, mkw_context** context, mkw_error* error) {{
  return create_context(model, nullptr, context, error);
}}
mkw_status run(mkw_context* c, const mkw_tensor* inputs, const mkw_tensor* outputs, void*) {{
  if (mkw_status s = check(inputs, k_inputs, {len(library.inputs)}, 0, kHost, &c->error)) return s;
  if (mkw_status s = check(outputs, k_outputs, {len(library.outputs)}, {len(library.inputs)}, kHost, &c->error))
    return s;
  if (mkw_status s = check_apart<{len(library.inputs)}, {len(library.outputs)}>(inputs, k_inputs, outputs, k_outputs,
                                                                              &c->error))
    return s;
  float* in[{len(library.inputs) + 1}];
  float* out[{len(library.outputs) + 1}];
  for (int k = 0; k < {len(library.inputs)}; ++k) in[k] = reinterpret_cast<float*>(address(inputs[k]));
  for (int k = 0; k < {len(library.outputs)}; ++k) out[k] = reinterpret_cast<float*>(address(outputs[k]));
  return body(in, out, c) == 0 ? MKW_OK : index_out_of_range(&c->error, "kernel0", "embedding");
}}
const mkw_error* last_error(const mkw_context* context) {{ return &context->error; }}
mkw_status workspace_bytes(const mkw_model*, int64_t* bytes) {{
  *bytes = k_plan.arena_bytes;
  return MKW_OK;
}}
mkw_status synchronize(mkw_context* context, mkw_error* error) {{ return wait_for(*context, error); }}
const mkw_api k_api = {{
    {library.version}, sizeof(mkw_api), MKW_DEVICE_CPU, {len(library.inputs)}, {len(library.outputs)}, k_inputs,
    k_outputs, k_manifest, sizeof k_manifest - 1, 0, {library.traffic}, model_create, release, context_create,
    destroy_context, run, last_error, nullptr, workspace_bytes, synchronize,
    "by hand", nullptr, nullptr, nullptr, nullptr}};
}}  // namespace
extern "C" __attribute__((visibility("default"))) const mkw_api* mkw_get_api(uint32_t version) {{
  return version == k_api.version ? &k_api : nullptr;
}}
"""


ADD_ONE = HandLibrary(
    inputs=(Tensor((8,)),),
    outputs=(Tensor((8,)),),
    body="for (int i = 0; i < 8; ++i) out[0][i] = in[0][i] + 1; return 0;",
)
"""x + 1 for float32[8]."""
