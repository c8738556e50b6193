"""Notes the user's source line of every op while torch.export traces, and reads it back from the graph.

torch keeps stack frames of functions called `forward` alone; here every op remembers the innermost line outside torch and
mkwrap, as `file:line: code`.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch.fx import traceback
from torch.overrides import TorchFunctionMode

_KEY = "mkwrap_location"
_MADE_BY_TORCH = "<eval_with_key>"
_INNER = (*(f"{Path(file).parent}{os.sep}" for file in (str(torch.__file__), __file__)), _MADE_BY_TORCH)
_OUTERMOST = str(Path(__file__).with_name("capture.py"))
"""Where tracing starts: what called this is not being traced."""
UNKNOWN = "(no source line known)"


class SourceLines(TorchFunctionMode):
    """While active, marks what is traced with the user's line; `traceback.preserve_node_meta` keeps the marks."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one torch function under its line."""
        del types
        if torch.compiler.is_dynamo_compiling():
            # An op of higher order has its function traced by dynamo, which cannot follow frames; it is marked when it runs.
            return func(*args, **(kwargs or {}))
        with traceback.annotate({_KEY: users_line(sys._getframe(1))}):
            return func(*args, **(kwargs or {}))


def source_location(node: torch.fx.Node) -> str:
    """Return `file:line: code` of the user's line that made a node, or a note that none is known."""
    noted = node.meta.get("custom")
    return str(noted.get(_KEY, UNKNOWN)) if isinstance(noted, dict) else UNKNOWN


def users_line(frame: FrameType | None) -> str:
    """Return the innermost line outside torch and mkwrap on a stack."""
    while frame is not None and (frame.f_code.co_filename.startswith(_INNER) or _is_text(frame)):
        frame = None if frame.f_code.co_filename == _OUTERMOST else frame.f_back
    if frame is None:
        return UNKNOWN
    name, line = frame.f_code.co_filename, frame.f_lineno
    return f"{name}:{line}: {linecache.getline(name, line).strip()}"


def _is_text(frame: FrameType) -> bool:
    """Whether a frame's code was made from text and is of no module, as what an exported program checks of its sizes."""
    return frame.f_code.co_filename == "<string>" and "__name__" not in frame.f_globals


def raising_line(error: BaseException) -> str:
    """Return the user's innermost line on the way to an error."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return UNKNOWN if place is None else users_line(place.tb_frame)
