"""Tables that a person writes: rows with their line numbers, and all their faults as one error."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Sequence

from rank_ssl.errors import UserError
from rank_ssl.tables import rows

FAULTS_SHOWN = 20

Row = tuple[int, dict[str, str]]  # line of the file, from 1, and the text of each column


@dataclasses.dataclass
class Table:
    """A CSV file in UTF-8 as text; the header in lower case, empty rows left out."""

    path: pathlib.Path
    text: str = ''
    comment: str = ''  # the line before the header that begins with '#'
    header: list[str] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    faults: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        """Raises UserError where there are faults: a line for the first, below it the others."""
        lines = [f'{self.path} line {line}: {fault}' for line, fault in sorted(self.faults)]
        if len(lines) > 1:
            lines[0] += f' (the first of {len(lines)} faults)'
        if lines:
            lines[0] += '; nothing was taken in'
            raise UserError('\n'.join(lines[:FAULTS_SHOWN]))


def read(path: pathlib.Path, flag: str = '') -> Table:
    """The table of a file. Raises UserError, under the name of a flag, where it is none."""
    name = f'{flag}={path}' if flag else str(path)
    try:
        text = path.read_bytes().decode('utf-8')
    except OSError as error:
        raise UserError(f'{name}: {error.strerror}; name a CSV file') from None
    except UnicodeDecodeError:
        raise UserError(f'{name} is not UTF-8 text; save it as CSV in UTF-8') from None
    table = Table(path, text)
    lines = _lines(table, name)
    _, fields = next(lines, (0, []))
    if fields and fields[0].lstrip().startswith('#'):
        table.comment = ' '.join(field.strip() for field in fields).strip()
        _, fields = next(lines, (0, []))
    table.header = [field.strip().lower() for field in fields]
    for line, fields in lines:
        if len(fields) == len(table.header):
            table.rows.append((line, dict(zip(table.header, fields, strict=True))))
        else:
            word = f'{len(fields)} field' + 's' * (len(fields) != 1)
            table.faults.append((line, f'has {word}; write {",".join(table.header)}'))
    return table


def added(table: Table, rows: Sequence[Sequence[str]]) -> str:
    """The table's text with rows more, its own lines as they were."""
    end = '\r\n' if '\r\n' in table.text else '\n'
    text = table.text if table.text.endswith('\n') or not table.text else table.text + end
    return text + written(rows, end=end)


def written(rows: Sequence[Sequence[str]], *, end: str = '\n') -> str:
    """Rows as text."""
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator=end).writerows(rows)
    return text.getvalue()


def _lines(table: Table, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row that is not empty."""
    try:
        yield from rows(io.StringIO(table.text.removeprefix('\ufeff'), newline=''))
    except csv.Error as error:
        raise UserError(f'{name} line {error}; check its double quotes') from None
