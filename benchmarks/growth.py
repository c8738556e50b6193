"""How much a library grows with the points it is tuned at: machine code and compile time. Writes JSON.

    python -m benchmarks.growth [--device cuda|cuda:sm_90] [--tune off|quick|full] [--model bert] [--dtype float32 …]
                                [--json FILE]

Each network is compiled with dynamic batch and length, for the example's point alone and for nine, by processes of their own
with empty caches. Binaries are those of all dispatch tables; equal ones count once, as the library holds them once. The goal:
nine points take at most three times the machine code of one, because points share their winners. Without measuring
(`--tune off`) any machine with Triton compiles for a GPU that is not there. With `--json`, cases that the file has and this
run leaves out are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from benchmarks.case import Case, short
from benchmarks.machine import describe
from benchmarks.models import bert_base
from torch.export import Dim

import mkwrap
from mkwrap import Options
from mkwrap.toolchain.library_file import LibraryFile, read_library
from mkwrap.toolchain.relink import AlternativeEntry, KernelEntry, Manifest

GOAL = 3.0
DTYPES = {short(dtype): dtype for dtype in (torch.float32, torch.bfloat16)}


@dataclass(frozen=True)
class Subject:
    """A network with dynamic sizes that takes one input."""

    case: Callable[[torch.dtype], Case]
    """The network at the sizes of its example."""
    dims: Mapping[int, Dim]
    example: Mapping[str, int]
    hints: Mapping[str, Sequence[int]]
    """The points, by symbol; the example's is one of them."""


SUBJECTS = {
    "bert": Subject(
        partial(bert_base, 8, 128),
        {0: Dim("batch", min=1, max=64), 1: Dim("seq", min=8, max=512)},
        {"batch": 8, "seq": 128},
        {"batch": (1, 8, 64), "seq": (32, 128, 512)},
    )
}


@dataclass(frozen=True)
class Job:
    """One library to compile."""

    model: str
    dtype: str
    device: str
    tune: str
    hints: Mapping[str, Sequence[int]]

    @property
    def case(self) -> Case:
        """The network at the sizes of its example."""
        return SUBJECTS[self.model].case(DTYPES[self.dtype])


@dataclass(frozen=True)
class KernelSize:
    """What a library holds of one kernel."""

    points: int
    """It was tuned at; 1 where no size is dynamic."""
    winners: int
    """Different binaries that win at a point; what else there is stands in for one where its guards fail."""
    binaries: Mapping[str, int]
    """Variant → bytes of its machine code."""

    @property
    def bytes(self) -> int:
        """Bytes of machine code."""
        return sum(self.binaries.values())


@dataclass(frozen=True)
class Size:
    """What a library holds, in bytes, and how long its compile took, in seconds by stage."""

    points: int
    cubin_bytes: int
    """Machine code, equal images once."""
    library_bytes: int
    """The file without the network's weights."""
    weight_bytes: int
    seconds: Mapping[str, float]
    kernels: Mapping[str, KernelSize]

    @property
    def binaries(self) -> int:
        """How many binaries the kernels have together."""
        return sum(len(kernel.binaries) for kernel in self.kernels.values())


def size_of(file: LibraryFile, seconds: Mapping[str, float]) -> Size:
    """Read what a library for GPUs holds."""
    manifest = cast(Manifest, file.manifest)
    blobs = file.parts.blobs
    alternatives = [found for kernel in manifest["kernels"] for found in _alternatives(kernel)]
    images = {digest: part for found in alternatives for digest, part in _images(found)}
    weights = {hashlib.sha256(blobs[part]).digest(): part for part in {p for a in alternatives for p in a["constants"]}}
    weight_bytes = sum(len(blobs[part]) for part in weights.values())
    return Size(
        points=max(1, len(manifest["hints"]["points"])) if "hints" in manifest else 1,
        cubin_bytes=sum(len(blobs[part]) for part in images.values()),
        library_bytes=file.size - weight_bytes,
        weight_bytes=weight_bytes,
        seconds=seconds,
        kernels={kernel["name"]: _kernel(kernel, blobs) for kernel in manifest["kernels"]},
    )


def _kernel(kernel: KernelEntry, blobs: Sequence[memoryview]) -> KernelSize:
    points = kernel.get("points", ())
    return KernelSize(
        points=max(1, len(points)),
        winners=max(1, len({point["winner"] for point in points})),
        binaries={
            found["variant"]: sum(len(blobs[part]) for part in {part for _, part in _images(found)})
            for found in _alternatives(kernel)
        },
    )


def _images(alternative: AlternativeEntry) -> Iterator[tuple[str, int]]:
    """Yield the digests of the images that a binary launches, with the parts that hold them (a launch of host code has none)."""
    for launch in alternative["launches"]:
        if launch["part"] is not None:
            yield launch["digest"], launch["part"]


def _alternatives(kernel: KernelEntry) -> Sequence[AlternativeEntry]:
    """Return all that a library holds of a kernel: of an open choice every variant, of a table its binaries."""
    if "open" in kernel:
        return kernel["open"]["alternatives"]
    if "dispatch" in kernel:
        return kernel["dispatch"]["alternatives"]
    only: AlternativeEntry = {
        "alternative": kernel["alternative"],
        "variant": kernel["winner"],
        "workspace_bytes": kernel["workspace_bytes"],
        "scratch_bytes": kernel["scratch_bytes"],
        "most_scratch_bytes": kernel["most_scratch_bytes"],
        "constants": kernel["constants"],
        "launches": kernel["launches"],
    }
    return [only]


def _compiled(job: Job) -> Size:
    subject = SUBJECTS[job.model]
    callee, inputs = job.case.make("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="mkwrap-growth-") as folder, torch.no_grad():
        options = Options(tune=job.tune, hints=job.hints, cache_dir=Path(folder), progress=False)  # type: ignore[arg-type]
        model = mkwrap.compile(callee, inputs, dynamic_shapes=(subject.dims,), target=job.device, options=options)
        assert model.compilation is not None
        return size_of(read_library(Path(model.path)), model.compilation.seconds)


def _in_a_process(job: Job) -> Size:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_compiled, job).result()


def table(one: Size, nine: Size) -> Iterator[str]:
    """Spell how each kernel grows, and the library."""
    yield f"  {'kernel':<14}{'binaries':>12}{'winners':>12}{'cubin bytes':>20}  ratio"
    for name, before in one.kernels.items():
        after = nine.kernels[name]
        counts = f"{len(before.binaries):>7} → {len(after.binaries):<2}{before.winners:>7} → {after.winners:<2}"
        yield f"  {name:<14}{counts}{before.bytes:>10} → {after.bytes:<8}{after.bytes / before.bytes:6.2f}"
    yield f"  {len(one.kernels)} kernels, binaries {one.binaries} → {nine.binaries}"
    yield f"  library without weights {one.library_bytes / 1e6:.2f} → {nine.library_bytes / 1e6:.2f} MB"
    for size in (one, nine):
        spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in size.seconds.items() if seconds >= 0.05)
        yield f"  {size.points} points: {math.fsum(size.seconds.values()):.1f} s ({spent})"
    ratio = nine.cubin_bytes / one.cubin_bytes
    verdict = "" if ratio <= GOAL else f", above {GOAL}"
    yield f"  cubin bytes {one.cubin_bytes} → {nine.cubin_bytes}: ratio {ratio:.2f}{verdict}"


def _described(size: Size) -> dict[str, object]:
    kernels = {name: {**asdict(kernel), "bytes": kernel.bytes} for name, kernel in size.kernels.items()}
    return {**asdict(size), "binaries": size.binaries, "kernels": kernels}


def main() -> None:
    """Compile every network asked for twice, print what each library holds, write the JSON."""
    parser = argparse.ArgumentParser(description="machine code of nine points beside that of one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cuda:sm_90")
    parser.add_argument("--tune", default="off", choices=("off", "quick", "full"))
    parser.add_argument("--model", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--dtype", nargs="*", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.tune != "off" and not torch.cuda.is_available():
        parser.error(f"--tune {asked.tune} measures, which needs a GPU")
    result: dict[str, Any] = {"cases": {}}
    if asked.json and asked.json.exists():
        result = json.loads(asked.json.read_text())
    for model in asked.model:
        for dtype in asked.dtype:
            subject = SUBJECTS[model]
            alone = {name: (size,) for name, size in subject.example.items()}
            jobs = [Job(model, dtype, asked.device, asked.tune, hints) for hints in (alone, subject.hints)]
            name = f"{jobs[0].case.name}, {asked.device}, tune={asked.tune}"
            print(f"\n{name}", flush=True)
            try:
                one, nine = map(_in_a_process, jobs)
            except ImportError as error:
                print(f"  left out: {error}")
                continue
            print("\n".join(table(one, nine)), flush=True)
            ratio = nine.cubin_bytes / one.cubin_bytes
            sizes = {"one point": _described(one), "nine points": _described(nine)}
            result["cases"][name] = {"machine": describe(), "ratio": round(ratio, 3), **sizes}
            if asked.json:
                asked.json.parent.mkdir(parents=True, exist_ok=True)
                asked.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
