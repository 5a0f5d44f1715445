"""Measures how well a ladder is ordered: `python -m data_prep.audit FOLDER --out=DIR`.

Every chain of the ladder is made of the images of a folder. Prints, as markdown, the mean PSNR,
SSIM and damaged area at each level, and the share of pairs of levels that stand in the wrong order
by each of them, on whole images and on the random crops that training sees. With --out also writes
DIR/audit.md and DIR/ladders.png, all chains of the first image. Images that can't be measured are
left out and listed on stderr.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import importlib.util
import itertools
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from matplotlib.figure import Figure

from data_prep.image_folder.source import walk
from data_prep.progress import Progress
from data_prep.source import BadFile, read_image
from data_prep.store import say
from rank_ssl import plots
from rank_ssl.errors import UserError
from rank_ssl.ops import crops, distortions, images

SIZE = 224  # px, of a crop as in training
DRAWS = 20  # sets of crops of each chain and image
MEASURES = ('PSNR', 'SSIM', 'damaged area')
WINDOW = 11  # px, of the Gaussian of sigma 1.5 that SSIM weighs with (Wang et al., 2004)
TID2013_PSNR = '33 / 30 / 27 / 24 / 21'  # dB, near which most types' levels of TID2013 lie


class Measured(NamedTuple):
    """PSNR in dB, SSIM and damaged area of one chain of one image, the pristine level first."""

    whole: np.ndarray  # f64[3, K]
    cropped: np.ndarray  # f64[DRAWS, 3, K], each level at a position of its own
    centre: np.ndarray  # u8[K, SIZE, SIZE, 3]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see python -m data_prep.audit --help')


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises UserError for what is wrong in it."""
    parser = _Parser(prog='python -m data_prep.audit', description=__doc__, allow_abbrev=False)
    parser.add_argument('folder', help='pristine images, in folders below it too')
    parser.add_argument('--ladder', choices=tuple(distortions.LADDERS), default='tid2013')
    parser.add_argument('--compat', choices=distortions.COMPATS, default='paper')
    parser.add_argument('--out', help='where audit.md and ladders.png go; default: not written')
    parser.add_argument('--images', type=int, help='the first so many; default all')
    parser.add_argument('--seed', type=int, default=0, help='of noise and of crops')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0, or 2 for a person's mistake."""
    try:
        audit(parse(argv))
        return 0
    except UserError as error:
        say(f'error: {error}')
        return 2
    except OSError as error:
        say(f'error: {error.filename or "system"}: {error.strerror or error}')
        return 2


def audit(args: argparse.Namespace) -> None:
    """Measures, prints and, where --out says so, writes."""
    for name, least in (('images', 1), ('seed', 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f'--{name}={value} must be at least {least}')
    if importlib.util.find_spec('skimage') is None:
        raise UserError('SSIM needs scikit-image, which is not there: pip install scikit-image')
    paths = find(pathlib.Path(args.folder).expanduser(), args.images)
    out = pathlib.Path(args.out).expanduser() if args.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise UserError(f'--out={args.out} is read-only: name a folder that can be written to')
    chains = tuple(distortions.LADDERS[args.ladder])
    found, bad = _collect(measure_all(paths, chains, compat=args.compat, seed=args.seed))
    for message in bad:
        say(f'left out: {message}')
    head = heading(args, len(paths) - len(bad), len(bad))
    text = f'{head}\n\n{levels_table(found)}\n\n{order_table(found)}'
    print(text, flush=True)
    if out:
        (out / 'audit.md').write_text(f'{text}\n', encoding='utf-8')
        first = {chain: every[0] for chain, every in found.items()}
        plots.save(figure(first, args.compat), out / 'ladders.png')


def find(folder: pathlib.Path, count: int | None) -> list[pathlib.Path]:
    """The first `count` images below a folder; raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f'{folder} is no folder: name one with pristine images')
    paths, others = walk(folder)
    if not paths:
        raise UserError(f'{folder} holds no image ({others} other files): name one that does')
    return paths[:count]


def _collect(
    measured: Iterator[tuple[str, Measured | BadFile]],
) -> tuple[dict[str, list[Measured]], list[str]]:
    """Measurements by chain, the pixels of the first image alone, and what is wrong with others.

    Raises UserError where no image can be measured.
    """
    found: dict[str, list[Measured]] = {}
    bad: dict[str, None] = {}  # in order; each chain meets the same fault
    for chain, one in measured:
        if isinstance(one, BadFile):
            bad[str(one)] = None
            continue
        every = found.setdefault(chain, [])
        every.append(one._replace(centre=one.centre[:0].copy()) if every else one)
    if not found:
        more = f' ({len(bad)} images, none of them usable)' if len(bad) > 1 else ''
        raise UserError(f'{next(iter(bad))}{more}')
    return found, list(bad)


def measure_all(
    paths: Sequence[pathlib.Path], chains: Sequence[str], *, compat: str, seed: int
) -> Iterator[tuple[str, Measured | BadFile]]:
    """(chain, what was measured or why not) of every chain of every image, one core each, in order.

    Works two tasks per core ahead: memory does not grow with the number of images.
    """
    tasks = [(i, path, chain) for i, path in enumerate(paths) for chain in chains]
    # A few images, because neighbouring tasks share one.
    read = functools.lru_cache(maxsize=4)(_read)

    def run(task: tuple[int, pathlib.Path, str]) -> Measured | BadFile:
        i, path, chain = task
        try:
            image = read(path)
        except BadFile as error:
            return error
        key = np.random.SeedSequence([seed, i, chains.index(chain)])
        rng = np.random.Generator(np.random.Philox(key))
        return measure(rng, image, chain, compat=compat)

    progress = Progress('audit', len(tasks))
    usable = False
    for task, measured in zip(tasks, _in_threads(run, tasks), strict=True):
        progress.step()
        usable = usable or isinstance(measured, Measured)
        yield task[2], measured
    if usable:
        progress.close()


def _in_threads(run: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """The results in order; at most two tasks per core are begun or wait to be taken."""
    workers = os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    ahead: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    waiting = iter(tasks)
    try:
        for _ in tasks:
            for task in itertools.islice(waiting, 2 * workers - len(ahead)):
                ahead.append(pool.submit(run, task))
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: pathlib.Path) -> np.ndarray:
    try:
        image = read_image(path)[1]
    except BadFile as error:
        raise BadFile(f'{error}: mend or remove it') from error
    if min(image.shape[:2]) < WINDOW:
        size = ' x '.join(map(str, image.shape[:2]))
        raise BadFile(f'{path} has {size} px, SSIM needs {WINDOW}: remove it')
    return image


def measure(rng: np.random.Generator, image: np.ndarray, chain: str, *, compat: str) -> Measured:
    """One chain of one image u8[H, W, 3], each level with noise of its own."""
    levels = distortions.LIVE.get(chain) or distortions.TID2013[chain]
    made = [distortions.distort(rng, image, chain, k, compat=compat) for k in range(levels + 1)]
    maps = [damage(image, one) for one in made]
    whole = np.stack([_numbers(one) for one in maps], 1)
    # As in training, an image smaller than a crop is mirrored up to it after its distortion.
    maps, made = ([images.extend(one, SIZE) for one in every] for every in (maps, made))
    shape = made[0].shape[:2]
    cropped = np.empty((DRAWS, *whole.shape))
    for draw, k in np.ndindex(DRAWS, len(made)):
        cropped[draw, :, k] = _numbers(_cut(maps[k], crops.sub_box(rng, shape, SIZE)))
    y, x = ((side - SIZE) // 2 for side in shape)
    centre = np.stack([_cut(one, (y, x, y + SIZE, x + SIZE)) for one in made])
    return Measured(whole, cropped, centre)


def damage(image: np.ndarray, distorted: np.ndarray) -> np.ndarray:
    """Squared error, SSIM and whether it changed, of each pixel, f32[H, W, 3].

    Error and SSIM are means over the channels.
    """
    from skimage.metrics import structural_similarity

    _, ssim = structural_similarity(
        image,
        distorted,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    error = np.square(image.astype(np.float32) - distorted).mean(-1)
    return np.stack([error, ssim.mean(-1), error > 0], -1).astype(np.float32)


def _numbers(maps: np.ndarray) -> np.ndarray:
    """PSNR (inf where nothing changed), SSIM and damaged area of one image's maps, f64[3]."""
    error, ssim, area = maps.mean((0, 1), dtype=np.float64)
    with np.errstate(divide='ignore'):
        return np.array([10 * np.log10(255**2 / error), ssim, area])


def _cut(image: np.ndarray, box: Sequence[int] | np.ndarray) -> np.ndarray:
    y0, x0, y1, x1 = box
    return image[y0:y1, x0:x1]


def out_of_order(values: np.ndarray) -> tuple[float, float]:
    """Shares of the pairs of levels that stand in the wrong order, and that are equal.

    `values` [..., K] should fall with the level, whose first is the pristine one.
    """
    before, after = np.triu_indices(values.shape[-1], 1)
    first, second = values[..., before], values[..., after]
    return float((first < second).mean()), float((first == second).mean())


def heading(args: argparse.Namespace, count: int, bad: int = 0) -> str:
    """What was measured, on `count` images, as markdown; `bad` others were left out."""
    noun = 'image' if count == 1 else 'images'
    others = f', {bad} left out as unusable' if bad else ''
    return (
        f'# The {args.ladder} ladder on {count} {noun} of {args.folder}{others}\n\n'
        f'Levels: {args.compat}. Seed: {args.seed}. PSNR is over all channels, SSIM the mean over '
        f'the channels with a Gaussian window of sigma 1.5 px; a pixel is damaged that changed in '
        f'any channel. Crops: {SIZE} px, {DRAWS} draws of each chain and image, each level at a '
        'position of its own.'
    )


def levels_table(found: Mapping[str, Sequence[Measured]]) -> str:
    """Means over the images at levels 1, 2, ... of each chain, as markdown.

    A chain that leaves an image as it is has an infinite PSNR, which the mean leaves out.
    """
    rows = [
        ['TID2013', 'chain', 'PSNR, dB', 'SSIM', 'damaged area, %', 'of crops, %'],
        ['---'] * 6,
        ['', 'near TID2013', TID2013_PSNR, '', '', ''],
    ]
    means = {chain: _means(every) for chain, every in found.items()}
    label, mean = _over_chains(list(means.values()))
    means[label] = mean
    for chain, values in means.items():
        texts = [
            ' / '.join(f'{v:.{digits}f}' for v in row)
            for row, digits in zip(values, (1, 3, 1, 1), strict=True)
        ]
        rows.append([distortions.NUMBERS.get(chain, ''), chain, *texts])
    return f'Levels 1 / 2 / ..., mean over the images:\n\n{_markdown(rows)}'


def _means(every: Sequence[Measured]) -> np.ndarray:
    """PSNR, SSIM, and damaged area of whole images and of crops in %, f64[4, K - 1]."""
    whole = np.mean([one.whole for one in every], 0)
    area = np.mean([one.cropped[:, 2] for one in every], (0, 1))
    return np.stack([*whole[:2], 100 * whole[2], 100 * area])[:, 1:]


def _over_chains(means: Sequence[np.ndarray]) -> tuple[str, np.ndarray]:
    """The title and the mean f64[4, K - 1] over the chains, its PSNR over the finite ones."""
    mean = np.mean(means, 0)
    finite = [one[0] for one in means if np.isfinite(one[0]).all()]
    if len(finite) == len(means):
        return 'mean of all chains', mean
    if finite:
        mean[0] = np.mean(finite, 0)
    return f'mean of all chains, PSNR of {len(finite)} of {len(means)}', mean


def order_table(found: Mapping[str, Sequence[Measured]]) -> str:
    """Pairs of levels in the wrong order and equal ones, in %, as markdown."""
    titles = [f'{name}, {where}' for where in ('whole', 'crops') for name in MEASURES]
    rows = [['chain', *titles], ['---'] * (len(titles) + 1)]
    shares = {chain: _shares(every) for chain, every in found.items()}
    shares['all chains'] = np.mean(list(shares.values()), 0)
    for chain, values in shares.items():
        rows.append([chain, *(f'{100 * wrong:.1f} + {100 * tied:.1f}' for wrong, tied in values)])
    return (
        'Pairs of levels of one chain and image, the pristine one among them, that stand in the '
        'wrong order + are equal, in %. The damaged area orders no chain that changes all pixels:'
        f'\n\n{_markdown(rows)}'
    )


def _shares(every: Sequence[Measured]) -> np.ndarray:
    """Wrong and equal pairs by each measure, of whole images, then of crops, f64[6, 2]."""
    falls = np.array([1, 1, -1])[:, None]  # the damaged area rises
    whole = np.stack([one.whole for one in every]) * falls
    cropped = np.stack([one.cropped for one in every]) * falls
    kinds = [values[..., i, :] for values in (whole, cropped) for i in range(len(MEASURES))]
    return np.array([out_of_order(values) for values in kinds])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def figure(first: Mapping[str, Measured], compat: str) -> Figure:
    """The centre of the first image in all chains, each level under its parameter (Fig. 2)."""
    made = {chain: one.centre[1:] for chain, one in first.items()}
    captions = {
        chain: [
            f'level {k}: {distortions.value(chain, k, compat=compat):.3g}'
            for k in range(1, len(levels) + 1)
        ]
        for chain, levels in made.items()
    }
    return plots.ladders(next(iter(first.values())).centre[0], made, captions)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # SystemExit: a KeyboardInterrupt may meet a library's import.
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    sys.exit(main())
