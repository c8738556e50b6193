"""Evaluates, at compile time, the parts of a captured graph that depend on constants alone.

*Requires* a functional graph. *Ensures* the same outputs; folded results are placeholders with a constant each. Pure views
of constants and results made from no constant (aranges, masks) are left: reading them costs nothing, storing them does.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch

aten = torch.ops.aten

_VIEWS = frozenset(
    {
        aten.view.default,
        aten.permute.default,
        aten.expand.default,
        aten.unsqueeze.default,
        aten.squeeze.dims,
        aten.slice.Tensor,
        aten.select.int,
        aten.alias.default,
        aten.as_strided.default,
    }
)
_GROWTH_LIMIT = 4
"""A folded result may be this many times larger than the constants it is made from."""


def fold_constants(
    graph_module: torch.fx.GraphModule, constants: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Fold in place; returns the constants that the graph still reads, by placeholder name."""
    values: dict[torch.fx.Node, torch.Tensor] = {}
    weights: dict[torch.fx.Node, int] = {}
    for node in graph_module.graph.nodes:
        if node.op == "placeholder" and node.name in constants:
            values[node] = constants[node.name]
            weights[node] = constants[node.name].numel()
        elif node.op == "call_function" and _is_foldable(node, values):
            _evaluate(node, values, weights)
    folded = dict(constants)
    for node in values:
        if node.op == "call_function" and node.target not in _VIEWS and weights[node] > 0:
            _replace(graph_module, node, values, folded)
    graph_module.graph.eliminate_dead_code()
    _drop_unused(graph_module, folded)
    graph_module.recompile()
    return folded


def _is_foldable(node: torch.fx.Node, values: Mapping[torch.fx.Node, torch.Tensor]) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem:
        return False
    if not isinstance(node.meta.get("val"), torch.Tensor) or torch.Tag.nondeterministic_seeded in node.target.tags:
        return False
    return all(source in values for source in node.all_input_nodes)


def _evaluate(
    node: torch.fx.Node, values: dict[torch.fx.Node, torch.Tensor], weights: dict[torch.fx.Node, int]
) -> None:
    size = node.meta["val"].numel()
    weight = sum(weights[source] for source in node.all_input_nodes)
    if weight and size > _GROWTH_LIMIT * weight:
        return
    args = torch.fx.node.map_arg(node.args, values.__getitem__)
    kwargs = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
    assert callable(node.target)
    with torch.no_grad():
        values[node] = node.target(*args, **kwargs)
    weights[node] = weight


def _replace(
    graph_module: torch.fx.GraphModule,
    node: torch.fx.Node,
    values: Mapping[torch.fx.Node, torch.Tensor],
    folded: dict[str, torch.Tensor],
) -> None:
    """Turn a folded node that something unfolded reads into a placeholder of its own."""
    if all(user in values and user.target not in _VIEWS for user in node.users):
        return
    first = next(iter(graph_module.graph.nodes))
    with graph_module.graph.inserting_before(first):
        placeholder = graph_module.graph.placeholder(f"folded_{node.name}")
    placeholder.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(placeholder)
    folded[placeholder.name] = values[node].contiguous()


def _drop_unused(graph_module: torch.fx.GraphModule, folded: dict[str, torch.Tensor]) -> None:
    for node in list(graph_module.graph.nodes):
        if node.op == "placeholder" and node.name in folded and not node.users:
            del folded[node.name]
            graph_module.graph.erase_node(node)
