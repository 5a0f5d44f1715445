"""Which of your own photos to label next, and taking their labels in.

    python -m rank_ssl.active --workdir=runs/quickstart --pool=photos --count=20
    python -m rank_ssl.active --workdir=runs/quickstart --pool=photos --labels=labels.csv \
        --into=dataset

The first writes the photos to label, by a finished run's certainty (eq. 15), to
WORKDIR/to_label/POOL-RULE, or POOL-RULE-2, ... where another list is there. The second adds labels,
`file,x,y` of persons or `file,score`, to a data set: data_prep's points_folder or image_scores.
Without --config it is the run's own. Exit codes as of rank_ssl.main.
"""

import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from rank_ssl import cli
from rank_ssl.errors import UserError

PROGRAM = 'rank_ssl.active'
ASKED = ('certainty', 'graded', 'dropout', 'kcenter')
POOL = flags.DEFINE_string('pool', None, 'A folder of photos, however deep.')
COUNT = flags.DEFINE_integer('count', None, 'How many photos to label next.')
RULE = flags.DEFINE_enum('rule', None, ASKED, "By what they are chosen; default the paper's.")
SKIP = flags.DEFINE_string(
    'skip', None, 'A CSV file whose column `file` names photos to leave out.'
)
ON_BAD = flags.DEFINE_enum('on_bad', None, ['error', 'skip'], 'Photos that cannot be read.')
LABELS = flags.DEFINE_string('labels', None, 'A CSV file of labels to be taken in.')
INTO = flags.DEFINE_string('into', None, 'The folder of the data set that they are added to.')
SPLIT = flags.DEFINE_enum('split', None, ['train', 'test'], 'The part of it; default train.')

ASKING = ('count', 'rule', 'skip', 'on_bad')
TAKING = ('labels', 'into', 'split')


def parse(argv: Sequence[str]) -> list[str]:
    """absl's flags, with each mistake as a UserError of one line."""
    argv = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
    for name in ('workdir', 'pool', *ASKING, *TAKING):
        if len(given := cli.typed(argv, name)) > 1:
            raise UserError(f'--{name} is given {len(given)} times ({", ".join(given)}): keep one')
    if cli.typed(argv, 'config'):
        rest = cli.parse_flags(argv, program=PROGRAM)
    else:
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            raise UserError(' '.join(str(error).split())) from error
    if rest[1:]:
        raise UserError(f'{rest[1]} is no flag; see python -m {PROGRAM} --help')
    _check()
    return rest


def _check() -> None:
    """Raises UserError for flags that do not go together."""
    for name in ('workdir', 'pool'):
        if not flags.FLAGS[name].value:
            example = '--workdir=runs/quickstart --pool=photos --count=20'
            raise UserError(f'--{name} is missing: python -m {PROGRAM} {example}')
        _folder(name)
    given = {name for name in (*ASKING, *TAKING) if flags.FLAGS[name].value is not None}
    taking = given.intersection(TAKING)
    if both := sorted(given.intersection(ASKING)) if taking else []:
        raise UserError(
            f'--{both[0]} asks which photos to label, --{min(taking)} takes labels in: give one of '
            'them'
        )
    needed = ('labels', 'into') if taking else ('count',)
    for name in needed:
        if not flags.FLAGS[name].present or flags.FLAGS[name].value == '':
            cure = '--labels=FILE.csv and --into=FOLDER take labels in, --count=20 asks for them'
            raise UserError(f'--{name} is missing: {cure}')
    if not taking and (COUNT.value or 0) < 1:
        raise UserError(f'--count={COUNT.value} must be 1 or greater')


def _path(name: str) -> pathlib.Path:
    return pathlib.Path(str(flags.FLAGS[name].value)).expanduser().absolute()


def _folder(name: str) -> pathlib.Path:
    path = _path(name)
    if not path.is_dir():
        fault = 'is no folder' if path.exists() else 'does not exist'
        kind = 'a folder of photos' if name == 'pool' else 'that of a run of rank_ssl.main'
        raise UserError(f'--{name}={flags.FLAGS[name].value} {fault}: name {kind}')
    return path


def main() -> None:
    """Asks, or takes in."""
    # Slow imports wait until the flags are known to be right.
    from rank_ssl import checkpoint, restore
    from rank_ssl.active import pool, take

    workdir, folder = _folder('workdir'), _folder('pool')
    config = cli.CONFIG.value or restore.config_of(workdir)
    config.check()
    if LABELS.value is None:
        config.data.on_bad = ON_BAD.value or config.data.on_bad
        if not os.access(workdir, os.W_OK):
            raise UserError(f'--workdir={workdir} is read-only: copy it to where it can be written')
        skip = _path('skip') if SKIP.value else None
        rule = RULE.value or ASKED[0]
        with checkpoint.lock(workdir):  # a run in training would prune what is read
            pool.ask(config, workdir, folder, count=COUNT.value or 1, rule=rule, skip=skip)
        return
    file, into, run = _path('labels'), _path('into'), pool.run_folder(workdir)
    taken = take.take(config, file, folder, into, split=SPLIT.value or '')
    print(f'{taken.added} photos added to {taken.table}, {taken.known} were in it already')
    for fault in take.missing(taken, into):
        print(fault)
    words = cli.config_words(sys.argv) or restore.command_of(workdir)
    for name, value in take.next_fields(config, taken, into, run).items():
        flag = f'--config.{name}='
        words = [*(word for word in words if not word.startswith(flag)), flag + value]
    command = shlex.join(['python', '-m', 'rank_ssl.main', *words, '--workdir=NEW'])
    print(f'train with them:\n{command}')


if __name__ == '__main__':
    # orbax tells of every file it opens, and prints the traceback of what it also raises.
    logging.set_verbosity(logging.FATAL)
    app.run(
        lambda argv: cli.guarded(main),
        flags_parser=lambda argv: cli.guarded(lambda: parse(argv)),
    )
