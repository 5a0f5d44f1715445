"""The command line that the programs share: flags to a checked Config, mistakes to one line."""

import contextlib
import errno
import itertools
import os
import pathlib
import re
import sys
import traceback
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
# Fields that only say where things lie: a run that is run again may find them elsewhere.
PLACES = ('data.manual_dir', 'data.data_dir', 'data.unlabeled_dirs', 'model.weights')
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def start(
    main: Callable[[Config, pathlib.Path], None],
    *,
    program: str,
    instead: str = '',
    config_of: Callable[[], Config] = lambda: CONFIG.value,
) -> None:
    """Runs `main(config, workdir)` as a program of that name; exit codes as in `rank_ssl.main`.

    A flag `instead` may stand in place of --config: `config_of()` then gives the config, and
    --config.FIELD=VALUE may be set of PLACES.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        return guarded(lambda: parse_flags(argv, program=program, instead=instead))

    def run(argv: Sequence[str]) -> None:
        def checked() -> None:
            config = config_of()
            for word in argv[1:]:
                path, _, text = word.partition('=')
                config.set(path, text)
            config.check()
            main(config, make_workdir(WORKDIR.value or ''))

        guarded(checked)

    # orbax tells of every file it opens, and prints the traceback of what it also raises.
    logging.set_verbosity(logging.FATAL)
    app.run(run, flags_parser=parse)


def parse_flags(argv: Sequence[str], *, program: str, instead: str = '') -> list[str]:
    """absl's flags, with each mistake as a UserError of one line.

    Returns the program's name and, beside `instead`, FIELD=VALUE of the fields that are set.
    """
    argv = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    if instead and typed(argv, instead):
        return _parse_instead(argv, instead)
    for flag in ('config', 'workdir'):
        given = typed(argv, flag)
        if not ''.join(given):
            example = '--config=experiments/quickstart.py --workdir=runs/quickstart'
            raise UserError(f'--{flag} is missing: python -m {program} {example}')
        if len(given) > 1:
            raise UserError(f'--{flag} is given {len(given)} times ({", ".join(given)}): keep one')
    path = typed(argv, 'config')[0].partition(':')[0]
    if not os.path.isfile(path):
        fault = 'is a folder' if os.path.isdir(path) else 'does not exist'
        raise UserError(f'--config={path} {fault}: name an experiment file')
    try:
        rest = flags.FLAGS(argv)
        config = CONFIG.value
        if not isinstance(config, Config):
            # A file that could not be loaded raises its own error when its value is used.
            with contextlib.suppress(AttributeError):
                _ = config.steps
            found = type(config).__name__
            raise UserError(f'--config={path}: get_config must return a Config, not {found}')
    except UserError:
        raise
    except flags.Error as error:
        in_file = 'Error whilst parsing config file' in str(error)
        raise UserError(_in_file(error, path) if in_file else _of_flag(error)) from error
    except KeyError as error:
        name = str(error).split()[1] if 'not found on dataclass' in str(error) else ''
        word = next((w for w in argv if name and w.partition('=')[0].endswith(f'.{name}')), '')
        if not word:
            raise UserError(_in_file(error, path)) from error
        cure = "the fields are in rank_ssl/config.py, the task's in rank_ssl/tasks"
        raise UserError(f'{word}: config has no such field; {cure}') from error
    except Exception as error:  # an experiment file may raise anything
        raise UserError(_in_file(error, path)) from error
    if rest[1:]:
        raise UserError(f'{rest[1]} is no flag; fields are set as --config.FIELD=VALUE')
    return rest


def _parse_instead(argv: list[str], instead: str) -> list[str]:
    """The flags of a command whose config is not an experiment file's."""
    if ''.join(typed(argv, 'config')):
        raise UserError(f'--{instead} has a config of its own: leave --config out')
    places = flags.FlagValues()
    places.set_gnu_getopt()  # the other flags may stand anywhere
    for name in PLACES:
        flags.DEFINE_string(f'config.{name}', None, '', flag_values=places)
    if not ''.join(typed(argv, 'workdir')):
        raise UserError('--workdir is missing: name a new folder for the second run')
    try:
        argv = places(argv, known_only=True)
        if other := typed_fields(argv):
            raise UserError(
                f'{other[0]}: --{instead} has a config of its own; beside it only where things lie '
                f'may be set: config.{", config.".join(PLACES)}'
            )
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(_of_flag(error)) from error
    if rest[1:]:
        raise UserError(f'{rest[1]} is no flag; --{instead} takes a file and --workdir a folder')
    values = {name: places[f'config.{name}'].value for name in PLACES}
    return [*rest, *(f'{name}={value}' for name, value in values.items() if value is not None)]


def typed(argv: Sequence[str], flag: str) -> list[str]:
    """The values of a flag as they were typed: `--config=FILE:args` or `--config FILE:args`."""
    found = []
    for place, word in enumerate(argv):
        name, equals, value = word.partition('=')
        if name.lstrip('-') == flag and name.startswith('-'):
            found.append(value if equals else ''.join(argv[place + 1 : place + 2]))
    return found


def typed_fields(argv: Sequence[str]) -> list[str]:
    """What sets fields of the config, as it was typed: --config.FIELD=VALUE in any of its forms."""
    found: list[str] = []
    for word, after in itertools.pairwise([*argv, '']):
        if re.match(r'--?(no)?config\.', word):
            alone = '=' in word or re.match(r'--?[a-z]|$', after)
            found += [word] if alone else [word, after]
    return found


def config_words(argv: Sequence[str]) -> list[str]:
    """The words that the config was made of: --config=FILE:arguments and fields."""
    return [f'--config={file}' for file in typed(argv, 'config')] + typed_fields(argv)


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


def guarded(function: Callable[[], T]) -> T:
    """What the function returns; a mistake or a stop ends the program: its line, its exit code."""
    try:
        return function()
    except UserError as error:
        first, *rest = str(error).splitlines() or ['']
        if first:
            lines = [f'error: {first}', *(f'  {line}' for line in rest)]
            _say('\n'.join(lines))
        sys.exit(2)
    except Stopped as stopped:
        _say(f'{stopped}: {stopped.left}')
        sys.exit(stopped.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in FULL:
            raise
        cure = 'free disk space and start the same command again'
        # A write that fails, unlike an opening, does not know its file.
        where = error.filename or f'a file of --workdir={"".join(typed(sys.argv, "workdir"))}'
        _say(f'error: {where}: {error.strerror}: {cure}')
        sys.exit(2)


def _say(text: str) -> None:
    # The exit code stands, also where nobody reads stderr any more.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def _in_file(error: BaseException, path: str) -> str:
    """Where an experiment file failed, and why."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    here = os.path.abspath(path)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == here]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    place = f', line {lines[-1]}' if lines else ''
    text = ' '.join(str(error).split())
    return f'--config={path}{place}: {type(error).__name__}: {text}; mend the file'


def _of_flag(error: flags.Error) -> str:
    text = ' '.join(str(error).split())
    if isinstance(error, flags.UnrecognizedFlagError):
        return f'--{error.flagname} is no flag; fields are set as --config.FIELD=VALUE'
    if whole := re.search(r'of field (\S+) is not supported|flag --(\S+?)=.*instance of', text):
        name = whole[1] or whole[2]
        return f'--{name} has fields of its own: set them one by one, --{name}.FIELD=VALUE'
    if wrong := re.match(r'flag --(config\.\S+?)=(.*?): ', text):
        kind = flags.FLAGS[wrong[1]].flag_type()
        return f'--{wrong[1]}={wrong[2]} is no value for this field: it takes one {kind}'
    return text
