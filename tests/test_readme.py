"""What README.md shows works as it stands there."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import optax

from rank_ssl import step as steps
from rank_ssl.config import Config
from rank_ssl.models.build import build_network, initial_params
from rank_ssl.models.network import make_apply
from rank_ssl.ops import images
from rank_ssl.tasks.crowd import Crowd
from rank_ssl.types import Batch, Labeled, Prediction, Task

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')


def own_task() -> Task:
    """The task that README.md writes out."""
    code = re.search(r'```python\n(.*?)```', README, re.S).group(1)
    names = {'dataclasses': dataclasses, 'Crowd': Crowd, 'Labeled': Labeled, 'np': np}
    exec(code, names | {'images': images, '__name__': __name__}, names)
    return names['Cells'](size=32)


def test_the_own_task_trains():
    task = own_task()
    assert isinstance(task, Task)
    config = Config(task=task)
    config.model.backbone, config.model.width, config.model.weights = 'vgg8', 0.1, 'none'
    config.check()
    network, _ = build_network(config)
    params = initial_params(network, None, key=jax.random.key(0), size=32)
    rng = np.random.default_rng(0)
    record = {'image': rng.integers(0, 256, (60, 80, 3)).astype(np.uint8), 'count': 7}
    ranked, labeled = task.ranked_set(rng, record), task.labeled(rng, record)
    batch = Batch(
        image=np.concatenate([ranked.images, labeled.image[None]])[None],
        phi=ranked.phi[None],
        segments=ranked.segments[None],
        ranked_where=np.ones((1, 5), bool),
        target=np.asarray(labeled.target)[None, None],
        labeled_where=np.ones((1, 1), bool),
    )
    tx = optax.sgd(1e-4)
    state = steps.create_state(make_apply(network), params, tx, jax.random.key(1))
    step = steps.make_train_step(task, tx, rank_weight=1, margin=1)
    losses = []
    for _ in range(5):
        state, metrics = step(state, batch)
        losses.append(float(metrics['regression']))
    assert losses[-1] < losses[0]


def test_the_own_task_is_evaluated_without_points():
    task = own_task()
    one = {'id': 'a', 'height': 60, 'width': 80, 'count': 7}
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    view = task.views(np.random.default_rng(0), one | {'image': image}).images[0]
    drawn = Prediction('a', view, np.ones((4, 5), np.float32), 20.0, one | {'image': image})
    predicted, true = np.array([20.0]), np.array([task.label(one)])
    assert task.metrics(predicted, true, [one]) == {'mae': 13.0, 'mse': 13.0}
    assert task.columns(one) == {}
    assert set(task.figures([drawn], predicted, true, [one])) == {'counts'}


def test_every_file_it_names_is_there():
    linked = re.findall(r'\]\(([\w./]+)\)', README)
    typed = re.findall(r'--config=(experiments/\w+\.py)', README)
    assert linked and typed
    assert all((ROOT / name).exists() for name in linked + typed)


def test_the_own_scores_can_be_prepared(tmp_path):
    from PIL import Image

    from data_prep import prepare

    table = re.search(r'```\n(image,score\n.*?)```', README, re.S).group(1)
    for row in table.splitlines()[1:]:
        path = tmp_path / 'mine' / row.split(',')[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)).save(path)
    (tmp_path / 'mine' / 'scores.csv').write_text(table)
    arguments = [f'--manual_dir={tmp_path / "mine"}', f'--data_dir={tmp_path / "made"}']
    assert prepare.main(['image_scores', *arguments]) == 0
    (record,) = (tmp_path / 'made').rglob('prepared.json')
    assert json.loads(record.read_text())['splits'] == {'all': 2}
