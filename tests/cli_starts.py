"""What the program does with each of many command lines, as JSON: exit code, stdout, stderr.

Run as `python cli_starts.py PROGRAM < CASES.json > RESULTS.json`. Each case is a process of its
own, forked after one common import: a start then takes milliseconds, not a second or two.
"""

import importlib
import json
import os
import sys
import tempfile
import warnings
from types import ModuleType

from rank_ssl import cli


def outcome(program: ModuleType, arguments: list[str]) -> dict[str, object]:
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            _start(program, arguments)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {'code': code, 'stdout': out.read(), 'stderr': err.read()}


def _start(program: ModuleType, arguments: list[str]) -> None:
    """Runs it as `python -m` would, then ends this process."""
    sys.argv = [program.__file__ or '', *arguments]
    code = 1
    try:
        cli.start(program.main, program=program.__name__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == '__main__':
    # jax and Python 3.12 warn of forks with threads; no computation has begun in this process.
    warnings.simplefilter('ignore')
    module = importlib.import_module(sys.argv[1])
    for later in ('rank_ssl.train', 'rank_ssl.tasks'):
        importlib.import_module(later)
    json.dump([outcome(module, case) for case in json.load(sys.stdin)], sys.stdout)
