"""The CPU targets: generated C++ for one instruction set level, compiled by the host compiler.

"cpu" is the highest level this machine has; "cpu:x86-64-v3" and the like are portable.
Levels are those of the x86-64 psABI, https://gitlab.com/x86-psABIs/x86-64-ABI.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from mkwrap.codegen import cpp
from mkwrap.errors import TargetError
from mkwrap.fresh import clear_on_fresh_cache
from mkwrap.options import Options, default_jobs
from mkwrap.stages import Device
from mkwrap.targets.target import Family, Target, stand_in
from mkwrap.toolchain import cxx
from mkwrap.toolchain.headers import include_dir

_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Level:
    """An instruction set level: compiler flags, vector width, and what /proc/cpuinfo must list."""

    machine: str
    vector_bytes: int
    flags: tuple[str, ...]
    features: frozenset[str]


_V2 = frozenset(["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"])
_V3 = _V2 | frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])

# Best first: "cpu" takes the first that this machine has.
LEVELS: Mapping[str, Level] = {
    "x86-64-v4": Level("x86_64", 64, ("-march=x86-64-v4", "-mprefer-vector-width=512"), _V4),
    "x86-64-v3": Level("x86_64", 32, ("-march=x86-64-v3",), _V3),
    "x86-64-v2": Level("x86_64", 16, ("-march=x86-64-v2",), _V2),
    "aarch64": Level("aarch64", 16, ("-march=armv8-a",), frozenset({"asimd"})),
}


def resolve(name: str, options: Options, measured: Sequence[Device] = ()) -> Target:
    """Return the target "cpu" or "cpu:<level>"; raises `TargetError` for another level or another machine's.

    `measured`: see `targets.resolve`.
    """
    _, _, wanted = name.partition(":")
    machine, features = platform.machine(), machine_features(_read(_CPUINFO))
    arch = wanted or next((a for a, level in LEVELS.items() if _runs(level, machine, features)), "")
    if arch not in LEVELS:
        raise TargetError(f"unknown CPU target {name!r} on {machine}; known: " + ", ".join(f"cpu:{a}" for a in LEVELS))
    level = LEVELS[arch]
    if level.machine != machine:
        raise TargetError(f"target {name!r} needs a compiler for {level.machine}; this machine is {machine}")
    flags = (*cxx.KERNEL_FLAGS, *level.flags)
    present = _runs(level, machine, features)
    device = _device(arch, level, options.threads if options.threads is not None else default_jobs())
    return Target(
        name=f"cpu:{arch}",
        kind="cpu",
        device=device if present else stand_in(device, measured),
        language=cpp.LANGUAGE,
        compile=partial(cxx.compile_source, cxx=options.cxx, flags=flags, include=include_dir()),
        toolchain=" ".join((cxx.compiler_version(options.cxx), *flags)),
        features=tuple(sorted(level.features)),
        flags=level.flags,
        present=present,
    )


FAMILY = Family("cpu", resolve)


def this_machine(arch: str, threads: int) -> tuple[Device, frozenset[str]]:
    """Return this machine as a device of an instruction set level, and its features as /proc/cpuinfo names them."""
    return _device(arch, LEVELS[arch], threads), machine_features(_read(_CPUINFO))


def machine_features(cpuinfo: str) -> frozenset[str]:
    """Return the features of the first processor in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def model_name(cpuinfo: str) -> str:
    """Return the processor's name in the text of /proc/cpuinfo, with family, model and stepping."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("CPU implementer", "unknown")
    return " ".join([name, *[fields[k] for k in ("cpu family", "model", "stepping", "CPU part") if k in fields]])


def cache_bytes(folder: Path) -> dict[int, int]:
    """Return the size of each data or unified cache level that sysfs lists."""
    sizes: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        size = _read(index / "size").strip()
        if _read(index / "type").strip() != "Instruction" and size.endswith("K"):
            sizes[int(_read(index / "level"))] = int(size[:-1]) * 1024
    return sizes


def _device(arch: str, level: Level, threads: int) -> Device:
    sizes = cache_bytes(_CACHES)
    device = Device("cpu", arch, vector_bytes=level.vector_bytes, units=threads, name=model_name(_read(_CPUINFO)))
    return replace(
        device,
        l1_bytes=sizes.get(1, device.l1_bytes),
        l2_bytes=sizes.get(2, device.l2_bytes),
        l3_bytes=sizes.get(3, device.l3_bytes),
    )


def _runs(level: Level, machine: str, features: frozenset[str]) -> bool:
    return level.machine == machine and level.features <= features


@clear_on_fresh_cache
@cache
def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
