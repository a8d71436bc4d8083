"""Text as values of Gymnasium's spaces: what `writing` wrote, and what people and models write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.text.describing import described
from envs.text.numerals import EMPTY, array_of, whole, words_of
from envs.text.parts import Arrays, Composed, graph_of, sequence_of
from envs.text.writing import label_of

_UNREADABLE = (ValueError, IndexError, KeyError, TypeError, RecursionError)


def read(space: spaces.Space[Any], text: str) -> Any:
    """The action that `text` describes. Raises ValueError that says what to write.

    Numbers are separated by spaces or commas, in brackets or not; a composed action is JSON, or
    has a line for each part.
    """
    try:
        value = parsed(space, text)
        fits = space.contains(value)
    except _UNREADABLE:
        fits = False
    if not fits:
        raise ValueError(f"write an action: {described(space)}")
    return value


def parsed(space: spaces.Space[Any], text: str) -> Any:
    """The value that `text` describes, even if it lies outside the bounds of `space`, as NaN does.

    Raises ValueError, IndexError, KeyError, TypeError or RecursionError for other text.
    """
    match space:
        case spaces.Text():
            return _text_of(space, text)
        case spaces.Discrete():
            (word,) = words_of(text, 1)
            return whole(word)
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            size = int(np.prod(space.shape or ()))
            return array_of(words_of(text, size), space.shape or (), space.dtype)
    text = text.strip("\n")
    if not isinstance(space, Composed):
        return _of_a_strange_space(space, text)
    if text.lstrip().startswith(("{", "[")):
        return from_tree(space, json.loads(text))
    return _from_blocks(space, text)


def _text_of(space: spaces.Text, text: str) -> str:
    """The text itself, or the one that it quotes as a JSON string."""
    if text.startswith('"'):
        try:
            quoted = json.loads(text)
        except ValueError:
            return text
        if isinstance(quoted, str) and (space.contains(quoted) or not space.contains(text)):
            return quoted
    return text


def _of_a_strange_space(space: spaces.Space[Any], text: str) -> Any:
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    return tree if isinstance(tree, str) else space.from_jsonable([tree])[0]


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """(first line, indented lines below it) of each part."""
    found = list[tuple[str, list[str]]]()
    for line in text.split("\n"):
        if line.startswith("  "):
            found[-1][1].append(line[2:])
        elif line:
            found.append((line, []))
    return found


def _body(head: str, label: str, below: list[str]) -> str:
    """What a part says after its label. Raises KeyError if it has another label."""
    if not head.startswith(f"{label}:"):
        raise KeyError(label)
    rest = head[len(label) + 1 :].removeprefix(" ")
    return "\n".join([rest, *below] if rest else below)


def _from_blocks(space: spaces.Space[Any], text: str) -> Any:
    blocks = [] if text.strip() == EMPTY else _blocks(text)
    match space:
        case spaces.Dict():
            return _dictionary(space, blocks)
        case spaces.Tuple():
            pairs = zip(space.spaces, blocks, strict=True)
            return tuple(
                parsed(part, _body(head, str(at), below))
                for at, (part, (head, below)) in enumerate(pairs)
            )
        case spaces.OneOf():
            ((head, below),) = blocks
            chosen = int(head.partition(":")[0])
            part = _chosen(space, chosen)
            return chosen, parsed(part, _body(head, str(chosen), below))
        case spaces.Sequence():
            return sequence_of(space, list(_items(space.feature_space, blocks)))
        case spaces.Graph():
            return _graph(space, blocks)
    raise TypeError(f"{space} has no parts")


def _dictionary(space: spaces.Dict, blocks: list[tuple[str, list[str]]]) -> dict[Any, Any]:
    if len(blocks) != len(space.spaces):
        raise KeyError("other names")
    value = {}
    for key, part in space.spaces.items():
        label = label_of(key)
        (found,) = [block for block in blocks if block[0].startswith(f"{label}:")]
        value[key] = parsed(part, _body(found[0], label, found[1]))
    return value


def _items(part: spaces.Space[Any], blocks: list[tuple[str, list[str]]]) -> Iterator[Any]:
    for at, (head, below) in enumerate(blocks):
        yield parsed(part, _body(head, str(at), below))


def _graph(space: spaces.Graph, blocks: list[tuple[str, list[str]]]) -> Any:
    bodies = {
        head.partition(":")[0]: _body(head, head.partition(":")[0], below) for head, below in blocks
    }
    if not {"nodes"} <= set(bodies) <= {"nodes", "edges"}:
        raise KeyError("other names")
    nodes = parsed(spaces.Sequence(space.node_space), bodies["nodes"])
    if "edges" not in bodies:
        return graph_of(space, nodes, None)
    blocks = [] if bodies["edges"] == EMPTY else _blocks(bodies["edges"])
    edges = list[tuple[int, int, Any]]()
    for head, below in blocks:
        link = head.partition(":")[0]
        start, _, end = link.partition(" -> ")
        edges.append((int(start), int(end), parsed(_edge(space), _body(head, link, below))))
    return graph_of(space, nodes, edges)


def _edge(space: spaces.Graph) -> spaces.Space[Any]:
    if space.edge_space is None:
        raise ValueError("a graph of this space has no edges")
    return space.edge_space


def _chosen(space: spaces.OneOf, number: int) -> spaces.Space[Any]:
    if not 0 <= number < len(space.spaces):
        raise IndexError(number)
    return space.spaces[number]


def from_tree(space: spaces.Space[Any], tree: Any) -> Any:
    """A value of JSON as one of `space`: JSON has neither arrays nor tuples.

    Raises KeyError, IndexError, TypeError or ValueError if it has another form.
    """
    match space:
        case spaces.Text():
            return tree
        case spaces.Discrete():
            return _whole_of_json(tree)
        case spaces.Box() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return _array_of_json(space, tree)
        case spaces.Dict():
            if set(tree) != set(map(str, space.spaces)):
                raise KeyError("other names")
            return {key: from_tree(part, tree[str(key)]) for key, part in space.spaces.items()}
        case spaces.Tuple():
            parts = zip(space.spaces, tree, strict=True)
            return tuple(from_tree(part, one) for part, one in parts)
        case spaces.OneOf():
            number, one = tree
            return _whole_of_json(number), from_tree(_chosen(space, _whole_of_json(number)), one)
        case spaces.Sequence():
            return sequence_of(space, [from_tree(space.feature_space, one) for one in tree])
        case spaces.Graph():
            return _graph_of_json(space, tree)
    return space.from_jsonable([tree])[0]


def _whole_of_json(tree: Any) -> int:
    if isinstance(tree, str):
        raise TypeError("a text is no number")
    return whole(tree)


def _array_of_json(space: Arrays, tree: Any) -> np.ndarray:
    """Numbers in lists of the shape of `space`, or in one list of all."""
    given = np.array(tree, dtype=object)
    shape = space.shape or ()
    if given.shape not in (shape, (int(np.prod(shape)),)):
        raise ValueError(f"numbers of shape {given.shape} instead of {shape}")
    numbers = given.ravel().tolist()
    if any(isinstance(number, str) for number in numbers):
        raise TypeError("a text is no number")
    return array_of(numbers, shape, space.dtype)


def _graph_of_json(space: spaces.Graph, tree: Any) -> Any:
    if not {"nodes"} <= set(tree) <= {"nodes", "edges"}:
        raise KeyError("other names")
    nodes = [from_tree(space.node_space, node) for node in tree["nodes"]]
    if tree.get("edges") is None:
        return graph_of(space, nodes, None)
    edges = [
        (_whole_of_json(start), _whole_of_json(end), from_tree(_edge(space), one))
        for start, end, one in tree["edges"]
    ]
    return graph_of(space, nodes, edges)
