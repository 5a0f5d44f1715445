"""The command line that the programs share: flags to a checked Config, mistakes to one line."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import app, flags, logging
from ml_collections import config_flags

from rank_ssl.config import Config
from rank_ssl.errors import Stopped, UserError

T = TypeVar('T')

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'An experiment file, arguments behind a colon: experiments/NAME.py:a,b'
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where checkpoints, metrics and figures go.')


def start(main: Callable[[Config, pathlib.Path], None], *, program: str) -> None:
    """Runs `main(config, workdir)` as a program of that name; exit codes as in `rank_ssl.main`."""

    def parse(argv: Sequence[str]) -> list[str]:
        return _guarded(lambda: parse_flags(argv, program=program))

    def run(argv: Sequence[str]) -> None:
        def checked() -> None:
            CONFIG.value.check()
            main(CONFIG.value, make_workdir(WORKDIR.value or ''))

        _guarded(checked)

    # orbax tells of every file it opens.
    logging.set_verbosity(logging.WARNING)
    app.run(run, flags_parser=parse)


def parse_flags(argv: Sequence[str], *, program: str) -> list[str]:
    """absl's flags, with each mistake as a UserError of one line."""
    try:
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f'{rest[1]} is no flag; fields are set as --config.FIELD=VALUE')
        for flag in ('config', 'workdir'):
            if flags.FLAGS[flag].value is None:
                example = '--config=experiments/quickstart.py --workdir=runs/quickstart'
                raise UserError(f'--{flag} is missing: python -m {program} {example}')
        config = CONFIG.value
        if not isinstance(config, Config):
            # A file that could not be loaded raises its own error when its value is used.
            _ = config.steps
            raise UserError(f'--config: get_config returns {type(config).__name__}, not a Config')
    except FileNotFoundError as error:
        raise UserError(
            f'--config={error.filename} does not exist: name an experiment file'
        ) from error
    except UserError:
        raise
    except Exception as error:  # an experiment file may raise anything
        raise UserError(_one_line(error)) from error
    return rest


def make_workdir(text: str) -> pathlib.Path:
    """The folder, made where it is not there. Raises UserError where it can't be written to."""
    workdir = pathlib.Path(text).expanduser().absolute()
    cure = 'name a folder that can be written to'
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--workdir={text}: {error.strerror}; {cure}') from error
    if not os.access(workdir, os.W_OK):
        raise UserError(f'--workdir={text} is read-only; {cure}')
    return workdir


def _guarded(function: Callable[[], T]) -> T:
    try:
        return function()
    except UserError as error:
        first, *rest = str(error).splitlines() or ['']
        if first:
            lines = [f'error: {first}', *(f'  {line}' for line in rest)]
            print('\n'.join(lines), file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(f'{stopped}: state saved; the same command goes on', file=sys.stderr)
        sys.exit(stopped.code)


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error.args[0] if error.args else error).split())
    if isinstance(error, flags.Error):
        return text
    if isinstance(error, KeyError) and 'not found on dataclass' in text:
        name = text.split()[1]
        return f'config has no field {name} there: the fields are in rank_ssl/config.py'
    return f'--config: {type(error).__name__}: {text}'
