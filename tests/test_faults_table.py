"""The table of faults: a row is as good as its tests, and what was skipped is named."""

from types import SimpleNamespace

from tests.faults_table import ROWS, Table


def reported(table: Table, row: int, injected: str, outcome: str, when: str = 'call') -> None:
    mark = {'row': row, 'injected': injected, 'outcome': 'one line'}
    table.pytest_runtest_logreport(
        SimpleNamespace(
            user_properties=[('fault', mark)], when=when, outcome=outcome, nodeid=f'test_{injected}'
        )
    )


def all_passed() -> Table:
    table = Table()
    for row in ROWS:
        reported(table, row, 'a', 'passed')
    return table


def test_what_was_skipped_is_not_shown_and_named_in_the_last_line():
    table = all_passed()
    assert table.lines(80)[-1] == f'{len(ROWS)} of {len(ROWS)} rows passed, {len(ROWS)} tests'
    reported(table, 20, 'read-only', 'skipped', when='setup')
    assert table.verdict(20) == 'passed' and table.good()
    *lines, last = table.lines(80)
    place = lines.index(f'{"injected":>15}  read-only')
    assert lines[place + 1] == f'{"came out":>15}  not shown'
    assert last.endswith(' tests; not shown here: 20 (read-only)')
    # Another of its parameters has shown it.
    reported(table, 20, 'read-only', 'passed')
    assert 'not shown' not in '\n'.join(table.lines(80))


def test_a_row_with_a_failure_or_without_a_test_that_ran_is_not_good():
    table = all_passed()
    reported(table, 4, 'b', 'failed')
    assert table.verdict(4) == 'FAILED' and not table.good()
    table = all_passed()
    table.rows[4].clear()
    assert table.verdict(4) == 'NO TEST' and not table.good()
    reported(table, 4, 'a', 'skipped', when='setup')
    assert table.verdict(4) == 'NO TEST' and not table.good()
