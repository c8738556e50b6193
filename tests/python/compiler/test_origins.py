"""Reports and errors name the user's lines; kernels do not depend on them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.python.compiler.forced import kernels_of

import mkwrap
from mkwrap import Options
from mkwrap.capture import capture
from mkwrap.errors import UnsupportedOpError
from mkwrap.lower import RULES
from mkwrap.origins import source_location


def inner(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x)


def outer(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    z = inner(x) @ y
    z[0] += 1
    return F.layer_norm(z, (4,))


def test_every_op_knows_the_innermost_line_of_the_user() -> None:
    captured = capture(outer, (torch.randn(3, 4), torch.randn(4, 4)), {}, None, RULES)
    ops = [node for node in captured.graph_module.graph.nodes if node.op == "call_function"]
    place = {node.name: source_location(node) for node in ops}
    line = inspect.getsourcelines(inner)[1] + 1
    assert place["gelu"] == f"{__file__}:{line}: return F.gelu(x)"
    assert place["mm"].endswith(": z = inner(x) @ y")
    assert place["add"].endswith(": z[0] += 1")
    assert place["native_layer_norm"].endswith(": return F.layer_norm(z, (4,))")


def test_unsupported_ops_are_listed_with_the_lines_of_a_function() -> None:
    def unsupported(x: torch.Tensor) -> torch.Tensor:
        y = x + x.mode(0).values
        return torch.linalg.svdvals(y) + x.mode(1).values.sum()

    with pytest.raises(UnsupportedOpError) as caught:
        capture(unsupported, (torch.randn(3, 3),), {}, None, RULES)
    text = str(caught.value)
    assert "aten.mode.default ×2" in text
    assert "y = x + x.mode(0).values" in text
    assert "return torch.linalg.svdvals(y) + x.mode(1).values.sum()" in text
    assert __file__ in text


@pytest.mark.toolchain
def test_a_kernel_is_the_same_when_lines_move(quick: Options, tmp_path: Path) -> None:
    x = torch.randn(5, 40)
    digests = []
    for blank_lines in (0, 3):
        text = "\n" * blank_lines + "def fn(x, softmax):\n    return softmax(x * 1.25, -1)\n"
        scope: dict[str, object] = {}
        exec(compile(text, str(tmp_path / "users.py"), "exec"), scope)
        users = scope["fn"]
        assert callable(users)
        model = mkwrap.compile(lambda x, users=users: users(x, torch.softmax), (x,), target="cpu", options=quick)
        (kernel,) = kernels_of(model)
        assert f"users.py:{blank_lines + 2}:" in str(kernel["origins"])
        assert isinstance(kernel["launches"], list)
        digests.append((kernel["launches"][0]["entry"], kernel["launches"][0]["digest"]))
    assert digests[0] == digests[1]
