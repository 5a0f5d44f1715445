"""What the readers of tables that people write share."""

import csv
import math
from collections.abc import Iterable, Iterator


def number(text: str) -> float:
    """The finite number in a text, else nan; Python's 1_000 is none."""
    try:
        value = math.nan if '_' in text else float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row of a CSV file that is not empty, lines counted from 1.

    Raises csv.Error, whose text begins with the line, for quotes that do not close.
    """
    reader, line = csv.reader(lines, strict=True), 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f'{line}: {error}') from None
