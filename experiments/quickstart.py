"""Multi-task crowd counting on embedded drawn scenes: no download, no weights, minutes on a CPU.

    python -m rank_ssl.main --config=experiments/quickstart.py --workdir=runs/quickstart

20 labeled scenes, the rest of the training set unlabeled, a VGG of one convolution per block and a
quarter of the width from scratch. `make demo` runs it and its baseline (--config.regime=baseline)
for two seeds. The argument `smoke` makes it seconds.
"""

from experiments import _smoke
from rank_ssl import config
from rank_ssl.tasks.crowd import Crowd

ARGUMENTS = ('smoke',)


def get_config(text: str = '') -> config.Config:
    """The multi-task run; `smoke` shrinks it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    task = Crowd(size=128, sigma=4.0, patch_min=64, patch_max=192)
    made = config.Config(task=task)
    made.model = config.Model(backbone='vgg8', width=0.25, weights='none')
    made.data.dataset = 'synthetic_crowd'
    made.data.labels = 20
    made.data.groups = 2
    made.optim = config.Optim(name='adam', rate=1e-3, head_rate=1.0, schedule='cosine')
    made.reduction = 'mean'
    made.margin = 1.0
    made.rank_weight = 1.0
    made.steps = 300
    made.eval_every = 50
    made.checkpoint_every = 100
    made.eval_batch = 4
    if 'smoke' in given:
        smoke(made, task)
    return made


def smoke(made: config.Config, task: Crowd) -> None:
    """Every part of the run, on made images of 64x96 px."""
    _smoke.shrink(made)
    task.size = 32
    task.patch_min, task.patch_max = 24, 64
    made.data.labels = 4
