"""What `--faults` adds: the tests of faults alone, and a table of them by the rows of ROWS.

A test shows a row by the marker `fault(row=4, injected='...', outcome='...')`; what it measured
comes into the table by `record_property('measured', '...')`. The session fails where a row has no
test that passed, or one that failed. What was skipped here is not shown, and the last line says so.
"""

import dataclasses
import shutil
import textwrap
from typing import Any

import pytest

ROWS = {
    1: 'kill -9 at random instants, also inside a save',
    2: 'SIGTERM, SIGINT',
    3: 'disk full',
    4: 'newest checkpoint or another file of the workdir damaged; stray or empty step folder',
    5: 'another config on resume',
    6: 'NaN or Inf in a gradient, once and for good',
    7: 'odd and damaged images, at preparation',
    9: 'damaged annotations (.mat up to version 7.2, tables)',
    11: 'pickled weights, object arrays',
    14: 'two runs on one workdir',
    15: 'data set missing, unreadable, of another layout, too small',
    16: 'resume on another device count',
    17: 'input pipeline restarted at every position',
    18: 'a finished run started again',
    19: 'loader worker killed or hung',
    20: 'read-only workdir, workdir is a file, spaces and non-ASCII in paths',
    21: 'stdout closed, no terminal',
}
FIELDS = {'row', 'injected', 'outcome'}


@dataclasses.dataclass
class Shown:
    """The tests of one marker: what was injected, what has to come out, and what did."""

    injected: str
    outcome: str
    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)  # test -> outcome
    measured: list[str] = dataclasses.field(default_factory=list)

    def total(self, outcome: str) -> int:
        return sum(counts.get(outcome, 0) for counts in self.counts.values())


class Table:
    """The plugin: collects results, also those of pytest-xdist's workers."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[tuple[str, str], Shown]] = {row: {} for row in ROWS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        marks = [value for name, value in report.user_properties if name == 'fault']
        # A skip or an error may come from a test's fixtures.
        if report.when != 'call' and report.outcome == 'passed':
            return
        for mark in marks:
            key = mark['injected'], mark['outcome']
            shown = self.rows[mark['row']].setdefault(key, Shown(*key))
            test = report.nodeid.partition('[')[0]
            counts = shown.counts.setdefault(test, {})
            counts[report.outcome] = counts.get(report.outcome, 0) + 1
            shown.measured += [v for name, v in report.user_properties if name == 'measured']

    def verdict(self, row: int) -> str:
        shown = self.rows[row].values()
        if any(one.total('failed') for one in shown):
            return 'FAILED'
        return 'passed' if any(one.total('passed') for one in shown) else 'NO TEST'

    def not_shown(self) -> list[str]:
        """Row and words of what no test has injected here, as all of its tests were skipped."""
        return [
            f'{row} ({shown.injected})'
            for row, injections in self.rows.items()
            for shown in injections.values()
            if not shown.total('passed') and not shown.total('failed')
        ]

    def good(self) -> bool:
        return all(self.verdict(row) == 'passed' for row in ROWS)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, 'workerinput') and not self.good():
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section('faults')
        width = min(110, shutil.get_terminal_size((100, 24)).columns)
        for line in self.lines(width):
            terminalreporter.write_line(line)

    def lines(self, width: int) -> list[str]:
        found = []
        for row, fault in ROWS.items():
            found.append(f'{row:3d}  {fault}: {self.verdict(row)}')
            for shown in self.rows[row].values():
                found += _wrapped('injected', shown.injected, width)
                done = shown.total('passed') or shown.total('failed')
                found += _wrapped('came out', shown.outcome if done else 'not shown', width)
                for words in shown.measured:
                    found += _wrapped('measured', words, width)
                for test, counts in shown.counts.items():
                    words = ', '.join(f'{n} {outcome}' for outcome, n in counts.items())
                    found.append(f'{"shown by":>15}  {test}: {words}')
        passed = sum(self.verdict(row) == 'passed' for row in ROWS)
        tests = sum(one.total('passed') for row in self.rows.values() for one in row.values())
        last = f'{passed} of {len(ROWS)} rows passed, {tests} tests'
        if missing := self.not_shown():
            last += f'; not shown here: {"; ".join(missing)}'
        return [*found, last]


def _wrapped(title: str, words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width, initial_indent=f'{title:>15}  ', subsequent_indent=' ' * 17)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--faults', action='store_true', help='the tests of faults, and their table')


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption('--faults') and not config.getoption('collectonly'):
        config.pluginmanager.register(Table(), 'faults-table')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked, others = [], []
    for item in items:
        marks = list(item.iter_markers('fault'))
        for mark in marks:
            if mark.args or mark.kwargs.keys() != FIELDS or mark.kwargs['row'] not in ROWS:
                raise pytest.UsageError(f'{item.nodeid}: fault takes row= of ROWS, injected= and '
                                        'outcome= alone')  # fmt: skip
            item.user_properties.append(('fault', dict(mark.kwargs)))
        (marked if marks else others).append(item)
    if config.getoption('--faults') and others:
        items[:] = marked
        config.hook.pytest_deselected(items=others)
