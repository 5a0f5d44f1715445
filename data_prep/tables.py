"""CSV tables in UTF-8: rows with their numbers, and a table's faults as one error."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from data_prep.source import BAD_SHOWN
from rank_ssl.errors import UserError
from rank_ssl.tables import rows

SHOWN = 60  # characters of a header that is not ours

Fault = tuple[int, str]  # row number, what is wrong and the cure


@dataclasses.dataclass
class Table:
    """A table as text; rows count from 1, and `faults` are those of other lengths than the header.

    `comment` is the first row where it starts with '#', its fields joined by spaces.
    """

    path: pathlib.Path
    comment: str = ''
    header: list[str] = dataclasses.field(default_factory=list)  # lower case
    header_row: int = 1
    rows: list[tuple[int, dict[str, str]]] = dataclasses.field(default_factory=list)
    faults: list[Fault] = dataclasses.field(default_factory=list)

    def rename(self, names: Mapping[str, str]) -> None:
        """Gives columns other names; raises UserError where two then have one."""
        header = [names.get(name, name) for name in self.header]
        self.check_twice(header)
        self.header = header
        self.rows = [
            (row, {names.get(name, name): text for name, text in fields.items()})
            for row, fields in self.rows
        ]

    def check_twice(self, names: Sequence[str]) -> None:
        """Raises UserError where two of the header's columns have one name, as given here."""
        for name in names:
            if name and names.count(name) > 1:
                raise self.wrong_header(f'it holds {name!r} twice, and must name each once')

    def wrong_header(self, cure: str) -> UserError:
        """The error for a header that is not ours."""
        found = ','.join(self.header)[:SHOWN]
        return UserError(f'{self.path} row {self.header_row}: the header is {found!r}; {cure}')


def read(path: pathlib.Path) -> Table:
    """The table in a CSV file; empty rows, and empty columns at the right, are left out.

    Raises UserError where it is no CSV in UTF-8, or where a column stands in it twice.
    """
    table = Table(path)
    lines = _lines(path)
    row, fields = next(lines, (1, []))
    if fields and fields[0].lstrip().startswith('#'):
        table.comment = ' '.join(field.strip() for field in fields).strip()
        row, fields = next(lines, (row + 1, []))
    table.header_row = row
    table.header = [field.strip().lower() for field in _without_empty_end(fields, 0)]
    table.check_twice(table.header)
    width = len(table.header)
    for row, fields in lines:
        fields = _without_empty_end(fields, width)
        if len(fields) == width:
            table.rows.append((row, dict(zip(table.header, fields, strict=True))))
        else:
            number = f'{len(fields)} field' + 's' * (len(fields) != 1)
            cure = f'write {",".join(table.header)}, a name with a comma in double quotes'
            table.faults.append((row, f'has {number}; {cure}'))
    return table


def _without_empty_end(fields: list[str], least: int) -> list[str]:
    while len(fields) > least and not fields[-1].strip():
        fields = fields[:-1]
    return fields


def _lines(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """(row number, fields) of each row that is not empty."""
    with path.open(encoding='utf-8-sig', newline='') as file:
        try:
            yield from rows(file)
        except UnicodeDecodeError:
            raise UserError(f'{path} is not UTF-8 text; save it as CSV in UTF-8') from None
        except csv.Error as error:
            raise UserError(f'{path} row {error}; check its double quotes') from None


def raise_faults(path: pathlib.Path, faults: Sequence[Fault], *, unit: str = 'row') -> None:
    """Raises UserError where there are faults: a line for the first, below it the others."""
    if not faults:
        return
    lines = [f'{path} {unit} {row}: {fault}' for row, fault in sorted(faults)]
    if len(lines) > 1:
        lines[0] += f' (the first of {len(lines)} faults)'
    more = [f'and {len(lines) - BAD_SHOWN} more'] if len(lines) > BAD_SHOWN else []
    raise UserError('\n'.join(lines[:BAD_SHOWN] + more))
