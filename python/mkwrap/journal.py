"""Notes how long each stage took and, if asked, writes each stage's value as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mkwrap.artifact import HostCode, Open, OpenPoints, OpenSelection
from mkwrap.errors import CacheError
from mkwrap.ir.printer import print_nest, print_program
from mkwrap.stages import (
    Binary,
    Candidates,
    CapturedGraph,
    Dispatch,
    Program,
    Rejected,
    Schedule,
    Selection,
    Source,
)

Value = TypeVar("Value")


@dataclass
class Journal:
    """Collects the seconds of each stage, in order; one per compile."""

    dump_dir: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, run: Callable[[], Value]) -> Value:
        """Run one stage, time it, dump its value."""
        start = time.perf_counter()
        value = run()
        self.seconds[name] = time.perf_counter() - start
        if self.dump_dir is not None:
            self._dump(f"{len(self.seconds):02d}-{name}", value)
        return value

    def _dump(self, name: str, value: object) -> None:
        assert self.dump_dir is not None
        try:
            self.dump_dir.mkdir(parents=True, exist_ok=True)
            for suffix, text in _texts(value):
                (self.dump_dir / f"{name}{suffix}").write_text(text)
        except OSError as error:
            raise CacheError(f"cannot write to Options.dump_dir {self.dump_dir}: {error.strerror}") from error


def _texts(value: object) -> list[tuple[str, str]]:
    match value:
        case CapturedGraph():
            return [(".txt", str(value.graph_module.graph) + "\n")]
        case Program():
            return [(".txt", print_program(value))]
        case Schedule():
            steps = "".join(f"{step.kernel}({', '.join(step.buffers)})\n" for step in value.steps)
            kernels = "\n".join(print_nest(kernel.nest) for kernel in value.kernels.values())
            return [(".txt", f"arena: {value.arena_bytes} bytes\n{steps}\n{kernels}")]
        case Candidates():
            lines = [f"{kernel}: {', '.join(v.label for v in vs)}\n" for kernel, vs in value.variants.items()]
            return [(".txt", "".join(lines))]
        case Selection():
            return [(".txt", "".join(f"{k}: {_labels(d)}\n" for k, d in value.winners.items()))]
        case OpenSelection():
            return [(".txt", "".join(f"{kernel}: {_labels(choice)}\n" for kernel, choice in value.choices.items()))]
        case HostCode():
            return [(".cpp", value.text), (".json", value.manifest)]
        case Mapping():
            return _texts_of_variants([item for items in value.values() for item in items])
        case _:
            return []


def _labels(choice: Dispatch | Open | OpenPoints) -> str:
    if isinstance(choice, Open | OpenPoints):
        return "open: " + ", ".join(binary.source.variant.label for binary in choice.binaries)
    return ", ".join(dict.fromkeys(row.binary.source.variant.label for row in choice.rows))


def _texts_of_variants(items: Sequence[Source | Binary | Rejected]) -> list[tuple[str, str]]:
    """Return each source as a text of its own, and one line for each variant that is built or rejected."""
    texts = [(_source_name(item, k), item.text) for k, item in enumerate(items) if isinstance(item, Source)]
    lines = [_line(item) for item in items if not isinstance(item, Source)]
    return texts + ([(".txt", "".join(lines))] if lines else [])


def _line(item: Binary | Rejected) -> str:
    if isinstance(item, Rejected):
        return f"{item.variant.kernel}: {item.variant.label}: {item.reason}\n"
    images = ", ".join(f"{image.entry}, {len(image.blob)} bytes" for image in item.images)
    return f"{item.source.variant.kernel}: {item.source.variant.label}: {images}\n"


def _source_name(source: Source, k: int) -> str:
    ending = {"cpp": ".cpp", "triton": ".py"}[source.language]
    return f"-{k:03d}-{source.variant.kernel}-{source.variant.template}{ending}"
