"""Refuses results that are no tensors, but follow from sizes: a library would give those of the example in every call."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
import torch.utils._pytree as pytree

from mkwrap.errors import DynamicShapeError
from mkwrap.ir.nodes import Expr
from mkwrap.ir.spelled import spelled
from mkwrap.symbols import Symbols
from mkwrap.traced import Traced


def refuse_sizes_as_results(graph_module: torch.fx.GraphModule, sizes: Mapping[str, Expr]) -> None:
    """Raise `DynamicShapeError` for a number made of sizes among the results."""
    for leaf in graph_module.graph.output_node().args[0]:  # type: ignore[union-attr]
        if isinstance(leaf, torch.fx.Node) and (
            leaf.name in sizes or not isinstance(leaf.meta.get("val"), torch.Tensor)
        ):
            number = spelled(sizes[leaf.name]) if leaf.name in sizes else leaf.name
            raise DynamicShapeError(
                f"the result holds {number}, a number made of sizes; return tensors alone, whose shapes "
                "tell the caller the same"
            )


def refuse_texts_of_sizes(
    graph_module: torch.fx.GraphModule,
    out_spec: pytree.TreeSpec,
    inputs: Sequence[Traced],
    symbols: Symbols,
    given: Collection[object],
) -> None:
    """Raise `DynamicShapeError` for a text among the results, or a key, that was made of a size.

    While torch traces, a size is written as the symbol that stands for it. What only looks like one is refused with it, but
    not what is `given` as an argument.
    """
    leaves = graph_module.graph.output_node().args[0]
    texts = [text for text in (*leaves, *_keys(out_spec)) if isinstance(text, str) and text not in given]  # type: ignore[misc]
    environment = getattr(getattr(inputs[0].fake, "fake_mode", None), "shape_env", None) if inputs else None
    for symbol in () if environment is None else environment.var_to_range:
        for text in texts:
            if symbol.name in text:
                size = symbols.meaning.get(symbol)
                what = "a number that depends on the values of tensors" if size is None else f"the size {spelled(size)}"
                raise DynamicShapeError(
                    f"the result holds the text {text!r}, made of {what} (called {symbol.name} while torch traces), and would "
                    "hold it in every call; return tensors alone, whose shapes tell the caller the same, or use another text"
                )


def _keys(spec: pytree.TreeSpec) -> Iterator[object]:
    """Yield the keys of all dicts in a structure."""
    if spec.type in (dict, collections.OrderedDict):
        yield from spec.context
    elif spec.type is collections.defaultdict:
        yield from spec.context[1]
    for part in spec.children():
        yield from _keys(part)
