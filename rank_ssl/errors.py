"""Errors that a person caused and can mend, and the end that a signal asks for."""

import signal


class UserError(Exception):
    """A user's mistake: one line with the value, the rule and the cure; `main` exits with code 2.

    Lines after the first, if any, are shown indented below it (an expected folder tree).
    """


class Stopped(Exception):
    """A signal ended the run; `left` says in what state, `code` is the exit code, 128 + signal."""

    def __init__(self, number: int, left: str = 'state saved; the same command goes on') -> None:
        super().__init__(signal.Signals(number).name)
        self.left, self.code = left, 128 + number
