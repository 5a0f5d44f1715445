"""A person's labels of photos, taken into a data set of their own: a whole file of them or none."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rank_ssl import logs
from rank_ssl.active import labels, tables
from rank_ssl.config import Config
from rank_ssl.errors import UserError
from rank_ssl.progress import say
from rank_ssl.tables import number
from rank_ssl.tasks import IQA, Crowd

SPLITS = ('train', 'test')
POINTS, SCORES = 'points.csv', 'scores.csv'  # as data_prep's points_folder and image_scores have it


class Taken(NamedTuple):
    """What a file of labels adds to a data set."""

    dataset: str  # the folder of data_prep that reads it
    table: pathlib.Path
    text: str  # the table's with the new rows
    copies: dict[pathlib.Path, pathlib.Path]  # from where to where, of images that are not there
    added: int  # photos
    known: int  # photos whose labels were there


def take(
    config: Config, file: pathlib.Path, pool: pathlib.Path, into: pathlib.Path, *, split: str = ''
) -> Taken:
    """Adds the labels of a file, and copies of their photos, to the data set in the folder `into`.

    Of counting `file,x,y`, a line a person; of quality `file,score`. What is there with the same
    content stays as it is. Raises UserError for any line that is wrong: then nothing has changed;
    and where another process takes labels in there.
    """
    given = tables.read(file, '--labels')
    if not isinstance(config.task, Crowd | IQA):
        raise UserError(
            f'--labels: those of the task {type(config.task).__name__} have no table known here: '
            'write your data set by hand'
        )
    with _locked(into):
        if isinstance(config.task, Crowd):
            taken = _points(given, pool, into, split or 'train')
        else:
            taken = _scores(given, pool, into, split)
        _commit(taken)
    return taken


@contextlib.contextmanager
def _locked(into: pathlib.Path) -> Iterator[None]:
    """Holds the folder for this process, by a lock of the system's that ends with it.

    Made where it is not there; it goes again where nothing comes into it.
    """
    made = [path for path in (into, *into.parents) if not path.exists()]
    with contextlib.ExitStack() as stack:
        try:
            into.mkdir(parents=True, exist_ok=True)
            # The folder's own: a file to lock would be one more in the data set.
            held = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _refused(error, into) from None
        stack.callback(os.close, held)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'--into={into}: another process is taking labels in there; nothing was taken in: '
                'wait for it and start the same command again'
            ) from None
        except OSError as error:  # some network file systems lock no folders
            say(f'--into={into} cannot be locked ({error.strerror}): take in one file at a time')
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty
                for path in made:
                    path.rmdir()


def _points(given: tables.Table, pool: pathlib.Path, into: pathlib.Path, split: str) -> Taken:
    labels.check_header(given, ('file', 'x', 'y'))
    found: dict[str, list[labels.Point]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    first: dict[str, int] = {}  # the line that names a photo first
    for line, row in given.rows:
        try:
            name = labels.name_of(pool, row['file'])
            if name not in shapes:
                shapes[name] = labels.shape_of(pool / name)
            point = labels.point_of(row['x'].strip(), row['y'].strip(), shapes[name])
            if name in found and not (point and found[name]):
                raise ValueError(f'{name!r} is labeled twice, in line {first[name]} too: keep one')
            first.setdefault(name, line)
            found.setdefault(name, []).extend([point] if point else [])
        except ValueError as error:
            given.faults.append((line, str(error)))
    listed = {place: _known_points(into / place / POINTS) for place in SPLITS}
    path = into / split / POINTS
    table = tables.read(path) if path.exists() else tables.Table(path, 'image,x,y\n')
    rows: list[list[str]] = []
    targets: dict[str, str] = {}
    for name, points in found.items():
        # Its names are without folders.
        target = name.replace('/', '_')
        with labels.faults(given, first[name]):
            if (other := targets.setdefault(target, name)) != name:
                raise ValueError(f'{name!r} and {other!r} would both be {target}: rename one')
            if _same_there(listed, split, target, sorted(map(labels.numbers_of, points)), name):
                continue
            rows += [[target, x, y] for x, y in points] or [[target, '', '']]
    copies = _copies(given, pool, into / split, {n: t for t, n in targets.items()}, first)
    given.check()
    added = len({row[0] for row in rows})
    text = tables.added(table, rows)
    return Taken('points_folder', path, text, copies, added, len(found) - added)


def _scores(given: tables.Table, pool: pathlib.Path, into: pathlib.Path, split: str) -> Taken:
    path = into / SCORES
    table = tables.read(path) if path.exists() else None
    named = [unit for unit in labels.UNITS if unit in (table or given).header]
    unit = named[0] if len(named) == 1 else 'score'
    labels.check_header(given, ('file', unit))
    header = table.header if table else ['image', unit]
    if table and not {'image', unit} <= set(header):
        raise UserError(f'{path}: the header is not image,score: mend it')
    if split and 'split' not in header:
        raise UserError(f'--split={split}: {path} has no column split; leave it out')
    limits = labels.limits_of(table.comment) if table else None
    there = {row['image']: number(row[unit]) for _, row in table.rows} if table else {}
    first: dict[str, int] = {}
    rows = []
    for line, row in given.rows:
        with labels.faults(given, line):
            name = labels.name_of(pool, row['file'])
            if name in first:
                raise ValueError(f'{name!r} is labeled twice, in line {first[name]} too: keep one')
            first[name] = line
            labels.shape_of(pool / name)
            score = labels.score_of(unit, row[unit].strip(), limits)
            if name in there:
                if there[name] != score:
                    raise ValueError(f'{name!r} has {unit}={there[name]:g} in {path}: mend one')
                continue
            fields = {'image': name, unit: row[unit].strip(), 'split': split or 'train'}
            rows.append([fields.get(title, '') for title in header])
    copies = _copies(given, pool, into, {name: name for name in first}, first)
    given.check()
    table = table or tables.Table(path, tables.written([header]))
    text = tables.added(table, rows)
    return Taken('image_scores', path, text, copies, len(rows), len(first) - len(rows))


def _known_points(path: pathlib.Path) -> dict[str, list[tuple[float, float]]]:
    """The points of each image in a data set's table, in rising order."""
    found: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return found
    table = tables.read(path)
    if table.header != ['image', 'x', 'y']:
        raise UserError(f'{path}: the header is not image,x,y: mend it')
    for _, row in table.rows:
        points = found.setdefault(row['image'], [])
        points += [labels.numbers_of((row['x'], row['y']))] if row['x'].strip() else []
    return {name: sorted(points) for name, points in found.items()}


def _same_there(
    listed: Mapping[str, Mapping[str, list[tuple[float, float]]]],
    split: str,
    target: str,
    points: list[tuple[float, float]],
    name: str,
) -> bool:
    """Whether the photo stands in the table as it is; ValueError where otherwise."""
    for place, known in listed.items():
        if target in known and place != split:
            raise ValueError(f'{name!r} is in {place}/{POINTS} already: leave it out')
    if target in listed[split] and listed[split][target] != points:
        raise ValueError(f'{name!r} has other points in {split}/{POINTS}: mend one')
    return target in listed[split]


def _copies(
    given: tables.Table,
    pool: pathlib.Path,
    folder: pathlib.Path,
    names: Mapping[str, str],
    first: Mapping[str, int],
) -> dict[pathlib.Path, pathlib.Path]:
    """The photos that are not in the folder yet; another file of the name is a fault."""
    found = {}
    for name, target in names.items():
        source, path = pool / name, folder / target
        if not path.exists():
            found[source] = path
        elif not path.is_file() or path.read_bytes() != source.read_bytes():
            given.faults.append((first[name], f'{path} is another image: rename one'))
    return found


def _commit(taken: Taken) -> None:
    """Copies, then puts the table in place; where a copy fails, those made go again."""
    made = []
    try:
        for source, target in taken.copies.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            made.append(target)
            partial = target.with_name(f'.{target.name}.partial')  # also a killed process's
            made.append(partial)
            shutil.copyfile(source, partial)
            os.replace(partial, target)
        if taken.added:
            logs.write_text(taken.table, taken.text)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise _refused(error, taken.table.parent) from None


def _refused(error: OSError, folder: pathlib.Path) -> UserError:
    place = error.filename2 or error.filename or folder
    return UserError(
        f'--into: {place}: {error.strerror}; nothing was taken in: name a folder that can be '
        'written to'
    )


def missing(taken: Taken, into: pathlib.Path) -> list[str]:
    """What the data set still lacks before a run can read it, in words."""
    if taken.dataset != 'points_folder':
        return []
    return [
        f'{into / split / POINTS} is missing: take labels in with --split={split} too'
        for split in SPLITS
        if not (into / split / POINTS).exists()
    ]


def next_fields(
    config: Config, taken: Taken, into: pathlib.Path, run: pathlib.Path
) -> dict[str, str]:
    """The fields of a config with which the run is trained on, with the labels of that folder."""
    data = config.data
    fields = {'data.dataset': taken.dataset, 'data.manual_dir': str(into.absolute())}
    # Of the data set before; what is at its default need not be said.
    before = {'mode': 'train', 'data.part': '', 'data.fold': 0, 'data.tiny': 0, 'data.labels': 0}
    fields |= {name: str(value) for name, value in before.items() if config.get(name) != value}
    if config.needs_unlabeled and not data.unlabeled_dirs:
        if data.unlabeled_set != 'image_folder':
            fields['data.unlabeled_set'] = 'image_folder'
        if not data.unlabeled_labeled:
            fields['data.unlabeled_labeled'] = 'true'
    home = pathlib.Path(data.manual_dir or os.environ.get('RANK_SSL_DATA', '')).expanduser()
    homes = {(home / name).absolute() for name in ('', taken.dataset)}  # as data_prep looks for it
    if data.dataset != taken.dataset or into.absolute() not in homes:
        # Of a set that has grown the splits are drawn anew: the run has seen labels of their test.
        fields['init_from'] = str(run)
    return fields
