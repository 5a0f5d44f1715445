"""Finished runs that no training made: what the tests of grids tabulate."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rank_ssl import ablate
from rank_ssl.arms import TABLES
from rank_ssl.config import REGIMES, Config, Data, Model
from rank_ssl.grid import Cell, make_cells
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.tasks.iqa import IQA

TASK = Crowd()
BASE = Config(task=TASK, steps=10)
TRUE = np.array([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0])
CROWD = Config(task=Crowd(), steps=100, data=Data(groups=2), model=Model(weights='none'))
QUALITY = Config(
    task=IQA(), steps=100, data=Data(dataset='tid2013_kodak', groups=2, labeled_per_group=1)
)
FACTS = {'labeled_images': 4, 'unlabeled_images': 2, 'validation_images': 3,
         'partial_data': False, 'device': '1 x cpu', 'best_step': 4}  # fmt: skip


def made_cell(
    workdir: Path, arm: str, seed: int, errors: Any, **result: Any
) -> tuple[Cell, dict[str, Any]]:
    """A finished cell of counting whose predictions are off by `errors`, with their result."""
    fields = (f'--config.regime={arm}',) if arm in REGIMES else ('--config.margin=2',)
    cell = Cell(arm, seed, workdir / arm / f'seed_{seed}', fields)
    return cell, finish(cell, BASE, TRUE + np.asarray(errors, float), **result)


def finish(
    cell: Cell,
    base: Config,
    predicted: np.ndarray,
    *,
    true: np.ndarray = TRUE,
    columns: dict[str, Sequence[Any]] | None = None,
    **result: Any,
) -> dict[str, Any]:
    """Writes what a run of the cell leaves when it predicts that; result.json's content."""
    cell.folder.mkdir(parents=True)
    ids = [f'image{n}' for n in range(len(true))]
    table = {'id': ids, 'true': true, 'predicted': predicted, **(columns or {})}
    with open(cell.folder / 'predictions.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    finite = np.isfinite(predicted).all()
    found = base.task.metrics(predicted if finite else true, true)
    config = cell.config(base)
    whole = {
        'steps': config['steps'],
        **{f'test/{name}': value if finite else np.nan for name, value in found.items()},
        f'best/val/{base.task.best}': 7.0,
        **FACTS,
        'test_images': len(true),
        'config': config,
        **result,
    }
    (cell.folder / 'result.json').write_text(json.dumps(whole))
    return whole


def cells_of(
    config: Config,
    table: str,
    workdir: Path,
    seeds: Sequence[str] = ('0', '1'),
    folds: Sequence[str] = (),
) -> list[Cell]:
    """The cells of an ablation table."""
    made = TABLES[table].arms(config, False)
    return make_cells([f'{arm}:{fields}' for arm, fields in made.items()], seeds, workdir, folds)


def tabulated(config: Config, workdir: Path, capsys: Any) -> str:
    """What the ablation command prints of the finished cells."""
    ablate.main(config, workdir)
    return capsys.readouterr().out
