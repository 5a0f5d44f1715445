"""A grid of runs: which cells there are, and running those that are not finished.

A cell is a run of `rank_ssl.main` in WORKDIR/ARM/seed_N, or WORKDIR/ARM/fold_F/seed_N, resumable by
itself. An arm is a regime, or a name with fields: 'wide:margin=5;seed=3'. In a field {workdir},
{seed}, {fold} and {run} stand for the grid's folder, the cell's seed and fold, and its folder below
its arm, so that one arm can start from another's run: 'tuned:init_from={workdir}/ranking/{run}'.
"""

import copy
import dataclasses
import itertools
import math
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from rank_ssl import cli, logs
from rank_ssl.changes import HARMLESS, since
from rank_ssl.config import REGIMES, Config
from rank_ssl.errors import UserError
from rank_ssl.jobs import Crew, Job, core_shares
from rank_ssl.types import Task

ARMS = flags.DEFINE_list('arms', None, 'Regimes, NAME:field=value;..., or of ablate its names.')
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds; each arm runs with each.')
FOLDS = flags.DEFINE_list('folds', [], 'Folds; each arm runs on each with each seed.')
SPLIT = flags.DEFINE_enum('compare', 'test', ['test', 'val'], 'val: to choose settings by.')
JOBS = flags.DEFINE_integer('jobs', 1, 'Cells that run at once, each on its share of the cores.')

# Fields of config.data, beside the seed, that say which images are labeled, selected on and tested.
CHOOSING = ('dataset', 'part', 'manual_dir', 'labels', 'validation', 'fold', 'test_share',
            'allow_partial', 'on_bad', 'tiny')  # fmt: skip

# What a table reads of every result.json, beside its metrics.
NEEDED = ('steps', 'best_step', 'labeled_images', 'unlabeled_images', 'validation_images',
          'test_images', 'partial_data', 'device', 'config')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    arm: str
    seed: int
    folder: pathlib.Path
    fields: tuple[str, ...]  # --config.FIELD=VALUE of the arm
    fold: int = 0  # 0: of a grid without folds

    @property
    def name(self) -> str:
        """The cell in words."""
        return f'{self.arm}, seed {self.seed}{f", fold {self.fold}" if self.fold else ""}'

    @property
    def folders(self) -> tuple[pathlib.Path, ...]:
        """Where its predictions lie."""
        return (self.folder,)

    def _all_fields(self) -> list[str]:
        fold = [f'--config.data.fold={self.fold}'] if self.fold else []
        return [*self.fields, *fold, f'--config.seed={self.seed}']

    def command(self, config: str, shared: Sequence[str]) -> list[str]:
        """The command that runs it, or goes on with it."""
        program = [sys.executable, '-m', 'rank_ssl.main', f'--config={config}', *shared]
        return [*program, *self._all_fields(), f'--workdir={self.folder}']

    def made(self, base: Config) -> Config:
        """Its configuration. Raises UserError for a field that is none."""
        made = copy.deepcopy(base)
        for field in self._all_fields():
            path, _, text = field.removeprefix('--config.').partition('=')
            try:
                made.set(path, text)
            except (AttributeError, ValueError):
                raise UserError(
                    f'{field} of --arms={self.arm} is no field of the config, or of another type: '
                    'mend it'
                ) from None
        return made

    def config(self, base: Config) -> dict[str, Any]:
        """Its configuration, as config.json holds it."""
        return self.made(base).to_dict()

    def starts_from(self, other: 'Cell') -> bool:
        """Whether one of its fields names the other's folder, or one in it."""
        place = re.compile(re.escape(str(other.folder)) + r'(?![\w.-])')
        return self.folder != other.folder and any(map(place.search, self.fields))

    @staticmethod
    def _matters(name: str, wanted: Any, regime: str) -> bool:
        """Whether a field that differs makes another run; a resumed one may do without it."""
        if name == 'init_from':
            return bool(wanted)  # else a first stage's folder stands there
        if name == 'rank_weight':
            return regime == 'multitask'  # one loss alone is not weighed
        return name not in HARMLESS or name.startswith('optim.') or name == 'model.weights'

    def result(self, base: Config, metric: str) -> dict[str, Any] | None:
        """Its result.json, null as nan; None where it has not taken its steps, or lacks the metric.

        Raises UserError where the result is damaged, of another config, or of more steps than are
        wanted.
        """
        found = logs.read_result(self.folder)
        if found is None:
            return None
        if lacking := [name for name in NEEDED if found.get(name) is None]:
            raise UserError(
                f'{self.folder / "result.json"} is damaged, it lacks {", ".join(lacking)}: delete '
                'it, and the same command makes it again'
            )
        result: dict[str, Any] = {n: math.nan if v is None else v for n, v in found.items()}
        wanted = self.made(base)
        other = {
            name: values
            for name, values in since(result['config'], wanted).items()
            if self._matters(name, values[1], wanted.regime)
        }
        if other:
            words = '; '.join(f'config.{name} {a}, now {b}' for name, (a, b) in other.items())
            raise UserError(f'{self.folder} holds another run ({words}): use another --workdir')
        # The steps of ridge are those that were asked for: it takes none.
        if result['steps'] > wanted.steps and wanted.regime != 'ridge':
            raise UserError(
                f'{self.folder} holds a run of {result["steps"]} steps, more than the '
                f'{wanted.steps} asked for: use another --workdir or ask for {result["steps"]}'
            )
        return result if result['steps'] >= wanted.steps and metric in result else None


Results = Sequence[tuple[Cell, dict[str, Any]]]


def check_data(results: Results, base: Config) -> None:
    """Raises UserError where cells that ask for the same images were run on other ones."""
    known: dict[tuple[Any, ...], tuple[pathlib.Path, str]] = {}
    for cell, result in results:
        made, now = cell.made(base), result.get('data_fingerprint')
        if now is None:
            continue
        asked = (made.seed, *(getattr(made.data, name) for name in CHOOSING))
        folder, first = known.setdefault(asked, (cell.folder, now))
        if now != first:
            raise UserError(
                f'{folder} and {cell.folder} were run on other data (data_fingerprint {first} and '
                f'{now}): move the one whose data are not wanted away, and the same command runs '
                'it again'
            )


def metric_name(task: Task) -> str:
    """The key of result.json that arms are compared by."""
    return f'test/{task.best}' if SPLIT.value == 'test' else f'best/val/{task.best}'


def make_cells(
    arms: Sequence[str], seeds: Sequence[str], workdir: pathlib.Path, folds: Sequence[str] = ()
) -> list[Cell]:
    """The grid, seed by seed, then fold by fold.

    Raises UserError for an arm, seed or fold that is none, or stands twice.
    """
    cells = []
    for seed, fold, arm in itertools.product(seeds, folds or [''], arms):
        name, _, text = arm.partition(':')
        fields = [f'--config.{field}' for field in text.split(';') if field]
        if not re.fullmatch(r'\w[\w.-]*', name) or not all('=' in field for field in fields):
            raise UserError(f'--arms={arm} is no arm: use a regime or NAME:field=value;field=value')
        if name in REGIMES:
            fields.insert(0, f'--config.regime={name}')
        elif not fields:
            raise UserError(f'--arms={arm} is no regime ({", ".join(REGIMES)}): give it fields')
        if not seed.isdecimal():
            raise UserError(f'--seeds={seed} must be whole numbers, 0 or greater; use 0,1,2')
        if folds and not (fold.isdecimal() and int(fold)):
            raise UserError(f'--folds={fold} must be whole numbers, 1 or greater; use 1,2,3,4,5')
        run = f'fold_{int(fold)}/seed_{int(seed)}' if folds else f'seed_{int(seed)}'
        number = int(fold or 0)
        places = {'workdir': str(workdir), 'seed': str(int(seed)), 'fold': str(number), 'run': run}
        for place, value in places.items():
            fields = [field.replace(f'{{{place}}}', value) for field in fields]
        cells.append(Cell(name, int(seed), workdir / name / run, tuple(fields), number))
    if not cells or len({cell.folder for cell in cells}) < len(cells):
        given = f'--arms={",".join(arms)} --seeds={",".join(seeds)}'
        given += f' --folds={",".join(folds)}' if folds else ''
        raise UserError(f'{given}: give at least one of each, and each name once')
    return cells


def run_cells(cells: Sequence[Cell], base: Config, metric: str, *, jobs: int = 1) -> None:
    """Runs what is not finished in its order, `jobs` cells at once.

    A cell that starts from another's run waits for it. With `jobs` above 1 each has its own share
    of the cores, and writes what it says to log.txt in its folder. Raises UserError where a cell
    cannot work or finished ones are of other data, before any is run, and where one fails, when
    those that run have ended.
    """
    for cell in cells:
        try:
            cell.made(base).check()
        except UserError as error:
            raise UserError(f'arm {cell.arm}: {error}') from None
    config, shared = cli.typed(sys.argv, 'config')[0], cli.typed_fields(sys.argv[1:])
    if SPLIT.value == 'val':
        shared.append('--config.evaluate_test=false')
    crew = Crew(core_shares(jobs), noun='cell', total=len(cells))
    results = [(cell, cell.result(base, metric)) for cell in cells]
    check_data([(cell, result) for cell, result in results if result is not None], base)
    left = [(n, cell) for n, (cell, result) in enumerate(results, 1) if result is None]
    crew.run(
        [
            Job(
                number,
                cell.name,
                tuple(cell.command(config, shared)),
                cell.folder / 'log.txt',
                frozenset(n for n, other in left if cell.starts_from(other)),
            )
            for number, cell in left
        ]
    )
