"""Removes copies and stores that nobody needs.

`forward_copies`: *requires* nests as lowered; *ensures* a temporary that is copied whole into an output is written there at
once. *Why before inlining*: a copy is a reader, and a value with one reader less may be inlined.
`drop_dead_stores`: *ensures* every stored temporary is read by another nest. *Why after merging*: merged readers do not
read memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mkwrap.fuse.graph import reads, writes
from mkwrap.fuse.inline import without_dead_nests
from mkwrap.ir.nodes import Buffer, Instruction, Load, Nest, Role, Store
from mkwrap.ir.rewrite import live_body
from mkwrap.stages import Program


def forward_copies(program: Program) -> Program:
    """Write results straight into the outputs they are copied to."""
    renames: dict[str, str] = {}
    kept: list[Nest] = []
    for nest in program.nests:
        copied = _whole_copy(nest, program.buffers)
        if copied is not None and copied[0] not in renames:
            renames[copied[0]] = copied[1]
        else:
            kept.append(nest)
    nests = tuple(replace(nest, body=tuple(_renamed(i, renames) for i in nest.body)) for nest in kept)
    buffers = {name: buffer for name, buffer in program.buffers.items() if name not in renames}
    return replace(program, nests=nests, buffers=buffers)


def _whole_copy(nest: Nest, buffers: Mapping[str, Buffer]) -> tuple[str, str] | None:
    """Return (temporary, output) if a nest copies the one, whole and in place, to the other."""
    match nest.body:
        case (Load(dest, _, source, read, None), Store(target, written, arg)):
            same = read == written and arg == dest and buffers[source].shape == buffers[target].shape
            roles = (buffers[source].role, buffers[target].role)
            return (source, target) if same and roles == (Role.TEMPORARY, Role.OUTPUT) else None
        case _:
            return None


def _renamed(instruction: Instruction, renames: Mapping[str, str]) -> Instruction:
    if isinstance(instruction, Load | Store) and instruction.buffer in renames:
        return replace(instruction, buffer=renames[instruction.buffer])
    return instruction


def drop_dead_stores(program: Program) -> Program:
    """Drop stores to temporaries that no other nest reads, and buffers that nothing touches."""
    read = frozenset().union(*[reads(nest) for nest in program.nests])
    nests = []
    for nest in program.nests:
        body = tuple(
            i
            for i in nest.body
            if not (isinstance(i, Store) and program.buffers[i.buffer].role is Role.TEMPORARY and i.buffer not in read)
        )
        nests.append(replace(nest, body=live_body(body)))
    alive = without_dead_nests([nest for nest in nests if writes(nest)], program.buffers)
    touched = frozenset().union(*[reads(nest) | writes(nest) for nest in alive])
    buffers = {n: b for n, b in program.buffers.items() if b.role is not Role.TEMPORARY or n in touched}
    return replace(program, nests=alive, buffers=buffers)
