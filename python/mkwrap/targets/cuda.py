"""The CUDA targets: generated Triton compiled to cubins for one architecture, also on a machine without a GPU.

"cuda" is the architecture of this machine's first device; "cuda:sm_90" and the like need no device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, cast

from mkwrap.codegen import triton
from mkwrap.errors import CompilerError, TargetError
from mkwrap.options import Options
from mkwrap.stages import Binary, Device, Launch, Rejected, Source, Variant
from mkwrap.targets.target import Family, Target, stand_in


@dataclass(frozen=True)
class LiveDevice:
    """What the driver says of a device that is there; sizes in bytes."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_optin_bytes: int
    l2_bytes: int
    driver_version: int
    """The CUDA version it speaks: 12080 is 12.8."""


class _Compiler(Protocol):
    def compile_source(self, source: Source, device: Device) -> Binary | Rejected: ...


class _Binding(Protocol):
    def cuda_devices(self) -> list[LiveDevice]: ...


# Before its first compile Triton imports its code generator and hashes its own files: 0.4 s, on a cold disk much more.
_WARM_UP = Source(
    Variant("", "warm_up"),
    "triton",
    "import triton\n\n\n@triton.jit\ndef mkw_nothing(x):\n    pass\n",
    (Launch("mkw_nothing", (), options={"num_warps": 1}, signature=(("x", "*fp32"),)),),
)


def _device(arch: str, units: int, shared_kib: int, l2_mib: int) -> Device:
    return Device(
        "cuda", arch, vector_bytes=16, units=units, shared_bytes=shared_kib * 1024, l2_bytes=l2_mib * 1024 * 1024
    )


# Shared memory a block may opt into: CUDA C++ Programming Guide, technical specifications per compute capability.
# Multiprocessors and L2: the data sheets of A100, RTX 3090, RTX 4090, H100 SXM, B200.
DEVICES: Mapping[str, Device] = {
    device.arch: device
    for device in (
        _device("sm_80", 108, 163, 40),
        _device("sm_86", 82, 99, 6),
        _device("sm_89", 128, 99, 72),
        _device("sm_90", 132, 227, 50),
        _device("sm_100", 148, 227, 126),
    )
}


def resolve(
    name: str, options: Options, measured: Sequence[Device] = (), live: Sequence[LiveDevice] | None = None
) -> Target:
    """Return the target "cuda" or "cuda:sm_XX"; `live` replaces the driver's list of devices.

    `measured`: see `targets.resolve`.

    Raises `TargetError` for an unknown architecture, or for "cuda" on a machine without a device; `CompilerError`
    where Triton is not installed.
    """
    del options
    devices = live_devices() if live is None else live
    _, _, wanted = name.partition(":")
    if not wanted and not devices:
        raise TargetError(f"this machine has no CUDA device; name an architecture: {', '.join(_names())}")
    arch = wanted or "sm_{}{}".format(*devices[0].capability)
    if arch not in DEVICES:
        raise TargetError(f"unknown CUDA target {name!r} ({arch}); known: {', '.join(_names())}")
    # The driver's first device is the one that is measured on, and the one a model takes unless told otherwise.
    here = devices[0] if devices and runs(arch, devices[0].capability) else None
    device = stand_in(DEVICES[arch], measured) if here is None else measured_device(DEVICES[arch], here)
    return Target(
        name=f"cuda:{arch}",
        kind="cuda",
        device=device,
        language=triton.LANGUAGE,
        compile=partial(compile_source, device=device),
        toolchain=f"triton {triton_version()} {arch}",
        warm_up=_WARM_UP,
        present=here is not None,
    )


FAMILY = Family("cuda", resolve)


def compile_source(source: Source, device: Device) -> Binary | Rejected:
    """Compile a Triton source to cubins (see `toolchain.cubin.compile_source`)."""
    # Triton takes a second to import, which targets that do not use it must not pay.
    compiler = cast(_Compiler, import_module("mkwrap.toolchain.cubin"))
    return compiler.compile_source(source, device)


def live_devices() -> tuple[LiveDevice, ...]:
    """Return this machine's CUDA devices; empty where there is no driver."""
    binding = cast(_Binding, import_module("mkwrap._C"))
    return tuple(
        LiveDevice(d.name, d.capability, d.multiprocessors, d.shared_optin_bytes, d.l2_bytes, d.driver_version)
        for d in binding.cuda_devices()
    )


def runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether a device runs cubins for an architecture.

    Up to 8.x any later minor version does; Triton compiles 9.0 and above for the architecture-specific `sm_XXa`, which
    runs on exactly that one.
    """
    number = int(arch.removeprefix("sm_"))
    major, minor = divmod(number, 10)
    if major >= 9:
        return capability == (major, minor)
    return capability[0] == major and capability[1] >= minor


def triton_version() -> str:
    """Return the version of the installed Triton; raises `CompilerError` where there is none."""
    try:
        return version("triton")
    except PackageNotFoundError as error:
        raise CompilerError("CUDA targets need Triton; install the `triton` package that belongs to torch") from error


def measured_device(device: Device, live: LiveDevice) -> Device:
    """Return an architecture's device with what the driver says of one that is there."""
    return replace(
        device,
        units=live.multiprocessors,
        shared_bytes=live.shared_optin_bytes,
        l2_bytes=live.l2_bytes,
        name=live.name,
        driver=f"{live.driver_version // 1000}.{live.driver_version % 1000 // 10}",
    )


def _names() -> list[str]:
    return [f"cuda:{arch}" for arch in DEVICES]
