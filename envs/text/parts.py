"""Values of Gymnasium's composed spaces taken apart and put together again."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

Arrays = spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary
"""Spaces whose values are arrays of numbers."""
Composed = spaces.Dict | spaces.Tuple | spaces.OneOf | spaces.Sequence | spaces.Graph
"""Spaces that are made of other spaces."""


def items_of(space: spaces.Sequence, value: Any) -> list[Any]:
    """The items of a sequence, stacked or not."""
    return list(iterate(space.stacked_feature_space, value)) if space.stack else list(value)


def sequence_of(space: spaces.Sequence, items: Items[Any]) -> Any:
    """The value of `space` with these items."""
    return stacked(space.feature_space, items) if space.stack else tuple(items)


def stacked(space: spaces.Space[Any], items: Items[Any]) -> Any:
    """Values of `space` in one value, as Gymnasium batches them."""
    empty: Any = create_empty_array(space, len(items))
    return concatenate(space, items, empty)


def nodes_of(space: spaces.Graph, graph: GraphInstance) -> list[Any]:
    """The features of a graph's nodes."""
    return list(iterate(space.batch_node_space, graph.nodes))


def edges_of(space: spaces.Graph, graph: GraphInstance) -> list[tuple[int, int, Any]] | None:
    """(from node, to node, features) of each edge; None if the graph has no list of edges."""
    if graph.edges is None or graph.edge_links is None:
        return None
    features = iterate(space.batch_edge_space, graph.edges)
    links = np.asarray(graph.edge_links).tolist()
    return [(start, end, one) for (start, end), one in zip(links, features, strict=True)]


def graph_of(
    space: spaces.Graph, nodes: Items[Any], edges: Items[tuple[int, int, Any]] | None
) -> GraphInstance:
    """The graph with these nodes and edges. Raises ValueError for edges where there are none."""
    features = stacked(space.node_space, nodes)
    if edges is None:
        return GraphInstance(features, None, None)
    if space.edge_space is None:
        raise ValueError("a graph of this space has no edges")
    links = np.array([edge[:2] for edge in edges], np.int32).reshape(len(edges), 2)
    return GraphInstance(features, stacked(space.edge_space, [edge[2] for edge in edges]), links)
