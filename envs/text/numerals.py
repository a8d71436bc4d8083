"""Numbers and arrays of numbers as text and back, without loss.

A whole number has all its digits; a float has the fewest digits that are read back as the same
float of its type. An array has one line a row; a cell of few numbers (colour, say) joins them with
commas; further axes are headed by `at 0:`. In an array of more than 256 numbers `0*79` stands for
79 cells of 0.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

import numpy as np

EMPTY = "(empty)"
"""An array without numbers, or a sequence without items."""
_SMALL = 256
"""Arrays of at most so many numbers are written without `*`."""
_CELL = 8
"""The most numbers along a last axis that are joined with commas."""
_HEAD = re.compile(r"^[ \t]*at [\d ]+:", re.MULTILINE)
_BRACKETS = str.maketrans("[]()", "    ")


def numerals(array: np.ndarray, digits: int | None = None) -> list[str]:
    """Each number of `array` as text, in C order.

    With `digits`, floats are rounded to so many significant digits.
    """
    flat = array.ravel()
    if array.dtype.kind in "bui":
        return list(map(str, (flat.astype(np.uint8) if array.dtype == bool else flat).tolist()))
    if array.dtype.kind != "f":
        raise TypeError(f"an array of {array.dtype} holds no numbers")
    if digits is not None:
        return [f"{number:.{digits}g}" for number in flat.tolist()]
    # numpy's own text of a number is the shortest that its type reads back
    numbers = flat.tolist() if array.dtype == np.float64 else flat
    return [str(number).removesuffix(".0") for number in numbers]


def laid_out(array: np.ndarray, digits: int | None = None) -> str:
    """An array as lines of text; see the head of this file."""
    if not array.size:
        return EMPTY
    cells: np.ndarray = np.array(numerals(array, digits), dtype=object).reshape(array.shape)
    if cells.ndim >= 3 and cells.shape[-1] <= _CELL:
        joined = [",".join(cell) for cell in cells.reshape(-1, cells.shape[-1])]
        cells = np.array(joined, dtype=object).reshape(cells.shape[:-1])
    rows = cells.reshape(-1, cells.shape[-1]) if cells.ndim else cells.reshape(1, 1)
    lines = [_row(row.tolist(), short=array.size > _SMALL) for row in rows]
    if cells.ndim < 3:
        return "\n".join(lines)
    return "\n".join(_headed(lines, cells.shape))


def _row(cells: list[str], *, short: bool) -> str:
    if not short:
        return " ".join(cells)
    written = list[str]()
    for cell, same in groupby(cells):
        times = len(list(same))
        written += [f"{cell}*{times}"] if times > 3 else [cell] * times
    return " ".join(written)


def _headed(lines: list[str], shape: tuple[int, ...]) -> list[str]:
    """The rows of a block of cells, each two-dimensional part headed by where it is."""
    rows = shape[-2]
    headed = list[str]()
    for number, at in enumerate(np.ndindex(shape[:-2])):
        headed.append(f"at {' '.join(map(str, at))}:")
        headed += lines[number * rows : (number + 1) * rows]
    return headed


def words_of(text: str, most: int) -> list[str]:
    """The numbers in `text`, each as text. Raises ValueError if there are more than `most`.

    Reads what `laid_out` writes, and lists with brackets and commas.
    """
    if text.strip() == EMPTY:
        return []
    words = list[str]()
    for token in _HEAD.sub(" ", text).translate(_BRACKETS).split():
        cell, star, times = token.partition("*")
        numbers = [word for word in cell.split(",") if word]
        repeated = int(times) if star else 1
        if len(words) + len(numbers) * repeated > most:
            raise ValueError(f"more than {most} numbers")
        words += numbers * repeated
    return words


def array_of(numbers: list[Any], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers, or texts of numbers, as an array. Raises ValueError if they do not fit it."""
    kind = np.dtype(dtype)
    if kind.kind in "bui":
        whole_numbers = [whole(number) for number in numbers]
        if kind.kind == "b" and not set(whole_numbers) <= {0, 1}:
            raise ValueError("neither 0 nor 1")
        try:
            return np.array(whole_numbers, kind).reshape(shape)
        except OverflowError as error:
            raise ValueError(str(error)) from error
    exact = np.array([float(number) for number in numbers])
    with np.errstate(over="ignore"):
        array = exact.astype(kind)
    if np.any(np.isinf(array) & np.isfinite(exact)):
        raise ValueError(f"too large for {kind}")
    return array.reshape(shape)


def whole(number: Any) -> int:
    """A whole number, or the text of one. Raises ValueError for any other."""
    try:
        return int(number) if isinstance(number, str | int) else _whole_float(float(number))
    except ValueError:
        return _whole_float(float(number))


def _whole_float(number: float) -> int:
    if not number.is_integer():  # neither are infinity and NaN
        raise ValueError(f"{number} is no whole number")
    return int(number)


def plain(array: np.ndarray) -> Any:
    """Nested lists of Python's numbers, which JSON writes without loss; one number for shape ()."""
    if array.dtype.kind in "bui":
        return array.astype(int).tolist() if array.dtype.kind == "b" else array.tolist()
    if array.dtype == np.float64:
        return array.tolist()
    # as float64 a float32 would have digits that it does not know
    shortest = [float(number) for number in numerals(array)]
    return np.array(shortest, np.float64).reshape(array.shape).tolist()
