"""Multi-task image quality assessment on LIVE (section 6.1, Table 4).

    python -m rank_ssl.main --config=experiments/iqa_live.py --workdir=runs/live

needs LIVE (release 2) and the Waterloo Exploration Database below $RANK_SSL_DATA or
--config.data.manual_dir, and ImageNet VGG-16 weights (--config.model.weights=FILE). Scores are
DMOS, lower is better: they are turned on reading and turned back in predictions.csv. Arguments,
behind a colon and combined by comma:

    pool       a head that pools the convolution features, where no dense weights are at hand
    evidence   a scale for two CPU cores: 96 px, conv1-conv3 frozen, pooled features
    smoke      seconds, on tiny made data, without weights

As experiments/iqa_tid2013.py, but for: four chains of six levels (Gaussian blur, Gaussian noise,
JPEG, JPEG2000; fast fading is regressed alone), 9 groups of 6 ranked + 2 labeled images = 72, a
rate of 1e-6 (6.1), and a margin of 5 of about 114 points (the paper gives none).
"""

from experiments import _iqa
from rank_ssl import config
from rank_ssl.tasks.iqa import IQA

ARGUMENTS = ('pool', 'evidence', 'smoke')


def get_config(text: str = '') -> config.Config:
    """The paper's run, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    task = IQA(ladder='live', unit='DMOS')
    made = config.Config(task=task)
    _iqa.paper(made)
    made.data.dataset = 'live'
    made.data.groups, made.data.labeled_per_group = 9, 2
    made.optim.rate = 1e-6
    made.margin = 5.0
    made.accumulate = 3
    if 'pool' in given:
        task.last, made.model.last_pool = 'pool', False
    if 'evidence' in given:
        _iqa.evidence(made, task)
        task.head_bias = -50.0  # the middle of the scale: 300 steps are too few to find it
    if 'smoke' in given:
        _iqa.smoke(made, task)
    return made
