"""Pieces of the tables: rows, means with deviations, the runs of an arm."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike


class Cell(Protocol):
    """One run of a grid."""

    @property
    def arm(self) -> str:
        """The name it has in the tables."""


Results = Sequence[tuple[Cell, Mapping[str, Any]]]


def row(cells: Sequence[Any]) -> str:
    """A line of a markdown table."""
    return f'| {" | ".join(map(str, cells))} |'


def head(columns: Sequence[str]) -> list[str]:
    """The first two lines of a markdown table."""
    return [row(columns), row(['---'] * len(columns))]


def number(value: float | None, digits: int = 3) -> str:
    """The number as text, '' where there is none."""
    return '' if value is None else f'{value:.{digits}f}'


def gain(value: float | None, digits: int = 3) -> str:
    """The number with its sign, '' where there is none."""
    return '' if value is None else f'{value:+.{digits}f}'


def spread(values: ArrayLike, digits: int = 3, *, sign: bool = False) -> str:
    """Mean ± deviation of the numbers; one alone has no deviation."""
    found = np.asarray(values, np.float64)
    mean = f'{found.mean():{"+" if sign else ""}.{digits}f}'
    return f'{mean} ± {found.std(ddof=1):.{digits}f}' if len(found) > 1 else mean


def by_arm(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    """The results of each arm, in the order in which the arms come."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for cell, result in results:
        arms.setdefault(cell.arm, []).append(result)
    return arms
