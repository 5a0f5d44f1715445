"""Prepares one data set: `python -m data_prep.prepare NAME --manual_dir=DIR`.

The last line on stdout is the absolute path of the prepared TFDS version folder; all else goes to
stderr. A person's mistake ends with exit code 2 and one line on stderr, below it the expected
folder tree where that helps. Where neither --manual_dir nor $RANK_SSL_DATA names a folder, the only
prepared copy of a set stands in for it; a named folder that lacks the set is an error. A set that
takes any image it finds (image_folder, ladders) asks for --manual_dir.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from data_prep import source as sources
from data_prep import store
from data_prep.source import Listing, Source
from data_prep.store import Place, Prepared, say
from rank_ssl.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see python -m data_prep.prepare --help')


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; raises UserError for what is wrong in it."""
    parser = _Parser(prog='python -m data_prep.prepare', description=__doc__, allow_abbrev=False)
    parser.add_argument('name', help=', '.join(sources.names()))
    parser.add_argument('--part', help="a part of the set, such as part_A; default the set's first")
    parser.add_argument('--manual_dir', help='parent of the unpacked sets; default $RANK_SSL_DATA')
    parser.add_argument('--data_dir', help='prepared sets; default ~/.cache/rank_ssl')
    parser.add_argument('--allow_partial', action='store_true', help='take an incomplete set')
    parser.add_argument('--on_bad', choices=('error', 'skip'), default='error')
    parser.add_argument('--tiny', type=int, help='first make this many train images of the set')
    parser.add_argument('--tiny_dir', help='folder for --tiny: new, empty or made by --tiny')
    for option in ('seed', 'train', 'test'):
        parser.add_argument(f'--{option}', type=int, help='of a set that is drawn')
    # What the program that runs this one puts before their names, so that it takes the told cure.
    parser.add_argument('--flags', default='', help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, or 2 for a person's mistake."""
    try:
        args = parse(argv)
        with _as_flags_of(args.flags):
            print(prepare(args), flush=True)
        return 0
    except UserError as error:
        first, *rest = str(error).splitlines()
        say('\n'.join([f'error: {first}', *(f'  {line}' for line in rest)]))
        return 2
    except OSError as error:
        cure = 'make it one that this user can read' if error.errno == errno.EACCES else ''
        fault = f'{error.filename or "system"}: {error.strerror or error}'
        say(f'error: {": ".join(filter(None, [fault, cure]))}')
        return 2


@contextlib.contextmanager
def _as_flags_of(start: str) -> Iterator[None]:
    """A mistake's first line names flags as the program that runs this one has them."""
    try:
        yield
    except UserError as error:
        first, *rest = str(error).splitlines()
        first = re.sub('--(on_bad=skip|allow_partial|data_dir:)', rf'--{start}\1', first)
        raise UserError('\n'.join([first, *rest])) from error


def prepare(args: argparse.Namespace) -> pathlib.Path:
    """The absolute path of the prepared version folder, made now where it isn't there."""
    source = sources.load(args.name)
    config = sources.check_config(source, args.part)
    given = {k: v for k in ('seed', 'train', 'test') if (v := getattr(args, k)) is not None}
    options = sources.check_options(source, given)
    data_dir = pathlib.Path(args.data_dir or store.default_data_dir()).expanduser().absolute()
    if args.tiny is not None:
        config, options = _tiny(source, config, options, args)
    folder = None
    if source.needs_folder:
        named = _named(source, args)
        folder = _locate(source, config, named)
        if folder is None:
            return _fallback(source, config, named, data_dir, args)
    reader = source(config, folder, **options)
    return _prepare(reader, data_dir, args)


def _tiny(
    source: type[Source], config: str, options: dict[str, int], args: argparse.Namespace
) -> tuple[str, dict[str, int]]:
    """Makes the tiny set, points `args` at it and returns the config and options it needs."""
    from data_prep import tiny

    if not source.needs_folder:
        return tiny.drawn(source, options, count=args.tiny)
    if not args.tiny_dir:
        raise UserError(f'--tiny={args.tiny} needs --tiny_dir=DIR, a folder for the made images')
    folder = pathlib.Path(args.tiny_dir).expanduser()
    tiny.write(source, folder, config=config, count=args.tiny, seed=options.pop('seed', 0))
    args.manual_dir, args.allow_partial = str(folder), True
    return config, options


def _named(source: type[Source], args: argparse.Namespace) -> str | None:
    """The folder that --manual_dir or, where that may be, $RANK_SSL_DATA names."""
    if source.takes_all and not args.manual_dir:
        raise UserError(
            f'{source.name} needs --manual_dir=DIR, whose images are all taken; '
            '$RANK_SSL_DATA, which holds labelled ones too, does not stand in for it'
        )
    return args.manual_dir or os.environ.get('RANK_SSL_DATA') or None


def _locate(source: type[Source], config: str, named: str | None) -> pathlib.Path | None:
    if named is None:
        return None
    return source.locate(config, pathlib.Path(named).expanduser().absolute())


def _fallback(
    source: type[Source],
    config: str,
    named: str | None,
    data_dir: pathlib.Path,
    args: argparse.Namespace,
) -> pathlib.Path:
    """The only prepared copy where no folder is named, else a UserError with the expected tree."""
    copies = []
    if not source.folder_is_identity:
        copies = store.prepared_copies(source, config, data_dir)
    copies = [copy for copy in copies if not copy.record['made']]
    usable = [copy for copy in copies if not copy.record['partial']]
    usable = usable or (copies if args.allow_partial else [])
    if named:
        origin = '' if args.manual_dir else ' ($RANK_SSL_DATA)'
        where = f'is not in {named}{origin}'
    else:
        where = 'needs --manual_dir (or $RANK_SSL_DATA)'
    if len(usable) == 1 and not named:
        say(f'{source.name} {config} {where}: using the copy prepared before')
        return _accept(usable[0], args.on_bad)
    where += _copies_note(copies, usable, named)
    command = f'python -m data_prep.prepare {source.name}'
    part = f' --part={config}' if len(source.configs) > 1 else ''
    raise UserError(
        f'{source.name} {config} {where}; unpack the set and run '
        f'{command}{part} --manual_dir=DIR, where DIR holds\n{source.tree(config)}'
    )


def _copies_note(copies: list[Prepared], usable: list[Prepared], named: str | None) -> str:
    """Why no prepared copy stands in, for an error message; empty where there is none."""
    if copies and named:
        return '; a prepared copy stands in only where no --manual_dir or $RANK_SSL_DATA is given'
    if usable:
        return f'; {len(usable)} prepared copies differ, so none is taken'
    return '; the prepared copy is partial, --allow_partial takes it' if copies else ''


def _prepare(source: Source, data_dir: pathlib.Path, args: argparse.Namespace) -> pathlib.Path:
    listing = source.items()
    missing = sources.shortfall(source, listing)
    if missing and not args.allow_partial:
        raise UserError(
            f'{source.name} {source.config} in {source.folder} is incomplete: {missing}; '
            f'complete it or pass --allow_partial\n{source.tree(source.config)}'
        )
    root = data_dir / source.name / source.config
    place = Place(root, store.fingerprint(source, listing), source.version)
    prepared = store.load_prepared(place.final)
    if prepared is None:
        with store.locked(place):
            prepared = store.load_prepared(place.final) or _build(source, listing, place, args)
    return _accept(prepared, args.on_bad)


def _build(source: Source, listing: Listing, place: Place, args: argparse.Namespace) -> Prepared:
    from data_prep import builder  # imports TFDS, which a set that is prepared does not need

    with store.temporary_folder(place) as folder:
        built, report = builder.build(source, listing, folder, on_bad=args.on_bad)
        record = report.record(place.fingerprint)
        final = store.publish(built, place, record)
    for line in summary(record):
        say(line)
    return Prepared(final, record)


def summary(record: dict[str, Any]) -> list[str]:
    """What a person should know about a set just prepared, as lines."""
    from data_prep import validate

    parts = [(n, 'images' if split == 'all' else split) for split, n in record['splits'].items()]
    splits = ', '.join(f'{n} {noun}' for n, noun in parts)
    persons, outside = sum(record['persons'].values()), sum(record['outside'].values())
    crowd = f', {persons} persons ({outside} annotated off the image)' if record['persons'] else ''
    quality = f'; {_quality(record)}' if record['scale'] else ''
    lines = [f'{record["name"]} {record["config"]}: {splits}{crowd}{quality}', *record['notes']]
    lines += [f'skipped: {bad}' for bad in record['bad_files']]
    return lines + validate.summary(record['near_duplicates'])


def _quality(record: dict[str, Any]) -> str:
    """Such as 'MOS 0.2424..7.214 of 0..9, higher is better; 24 references, ...'."""
    scale = record['scale']
    low = min(low for low, _ in record['scores'].values())
    high = max(high for _, high in record['scores'].values())
    better = 'lower' if scale['lower_is_better'] else 'higher'
    line = f'{scale["unit"]} {low:.4g}..{high:.4g} of {scale["low"]:g}..{scale["high"]:g}'
    counts = {
        'references': sum(record['references'].values()),
        'kinds of distortion': len(record['kinds']),
    }
    known = ', '.join(f'{number} {noun}' for noun, number in counts.items() if number)
    return f'{line}, {better} is better; {known or "no references"}'


def _accept(prepared: Prepared, on_bad: str) -> pathlib.Path:
    """The path of a prepared copy; UserError where it lacks bad files that now are errors."""
    record = prepared.record
    label = f'{record["name"]} {record["config"]}'
    if record['bad_files'] and on_bad == 'error':
        bad = record['bad_files']
        raise UserError(sources.bad_files_message(label, bad))
    if record['made']:
        say(f'{label}: tiny made images, for trying things out only')
    elif record['partial']:
        have = ', '.join(
            f'{split} {record["splits"].get(split, 0)} of {n}'
            for split, n in record['expected'].items()
        )
        say(f'{label} is partial ({have}): results are not comparable with published ones')
    return prepared.path


def _interrupted(*_: object) -> NoReturn:
    # SystemExit: a KeyboardInterrupt that meets a library's import may end the process by signal.
    say('interrupted: nothing was kept')
    sys.exit(130)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary folders go
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())
