"""Which of a library's targets this machine is, told without the target's toolchain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mkwrap.errors import ArchitectureError, DriverError
from mkwrap.stages import Device
from mkwrap.targets import cpu, cuda
from mkwrap.toolchain.relink import TargetEntry


@dataclass(frozen=True)
class Here:
    """A target that this machine has the device of, and its place among the library's targets."""

    number: int
    kind: Literal["cpu", "cuda"]
    device: Device


def here(targets: Sequence[TargetEntry], path: str, threads: int | None = None, ordinal: int = 0) -> Here:
    """Return the target that a model of the library would take on this machine's CPU, or CUDA device of an ordinal.

    `threads`: on a CPU, of what it is measured with; None: what the library was compiled for.
    Raises `ArchitectureError` where none of them is this machine's, `DriverError` where it has no CUDA device.
    """
    return _cpu(targets, path, threads) if targets[0]["kind"] == "cpu" else _cuda(targets, path, ordinal)


def _cuda(targets: Sequence[TargetEntry], path: str, ordinal: int) -> Here:
    devices = cuda.live_devices()
    if ordinal >= len(devices):
        missing = f"CUDA device {ordinal}" if devices else "CUDA device, or no driver for it"
        raise DriverError(f"{path} is for a GPU; this machine has no {missing}")
    live = devices[ordinal]
    fitting = [n for n, target in enumerate(targets) if cuda.runs(target["arch"], live.capability)]
    if not fitting:
        archs = ", ".join(target["arch"] for target in targets)
        major, minor = live.capability
        raise ArchitectureError(f"{path} is compiled for {archs}; this device ({live.name}) is sm_{major}{minor}")
    best = max(fitting, key=lambda n: int(targets[n]["arch"].removeprefix("sm_")))
    return Here(best, "cuda", cuda.measured_device(cuda.DEVICES[targets[best]["arch"]], live))


def _cpu(targets: Sequence[TargetEntry], path: str, threads: int | None) -> Here:
    (target,) = targets
    device, features = cpu.this_machine(target["arch"], threads if threads is not None else target["units"])
    missing = sorted(set(target["features"]) - features)
    if missing:
        raise ArchitectureError(f"{path} is compiled for {target['arch']}; this CPU lacks {', '.join(missing)}")
    return Here(0, "cpu", device)
