"""Quality of photos as people take them: BIQ2021, authentic distortions without references.

    python -m rank_ssl.main --config=experiments/iqa_biq2021.py --workdir=runs/biq2021

The paper has no such experiment: here the ladders are of synthetic distortions and the labels of
real ones. It needs BIQ2021 below $RANK_SSL_DATA or --config.data.manual_dir, a folder of pristine
images to rank (--config.data.unlabeled_dirs=FOLDER), and ImageNet VGG-16 weights
(--config.model.weights=FILE). Arguments, behind a colon and combined by comma:

    fc         VGG-16's fully connected layers, where their weights are at hand
    evidence   a scale for two CPU cores: 128 px, conv1-conv3 frozen
    smoke      seconds, on tiny made data, without weights

Scores lie in [0, 1]. --config.regime=ridge is the anchor to beat: frozen features of the same
network and ridge regression, on the same rows.
"""

from experiments import _iqa
from rank_ssl import config
from rank_ssl.tasks.iqa import IQA

ARGUMENTS = ('fc', 'evidence', 'smoke')


def get_config(text: str = '') -> config.Config:
    """The full run, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    task = IQA(unit='MOS', last='fc' if 'fc' in given else 'pool', head_bias=0.5)
    made = config.Config(task=task)
    _iqa.paper(made)
    made.model.last_pool = 'fc' in given
    made.data.dataset = 'biq2021'
    made.data.unlabeled_set = 'ladders'
    made.margin = 0.05
    if 'evidence' in given:
        _iqa.evidence(made, task)
        task.size = 128
        made.optim.head_rate = 0.1  # the scale is a tenth of TID2013's
        made.steps, made.eval_every = 200, 100
        made.data.allow_partial = True
    if 'smoke' in given:
        _iqa.smoke(made, task)
    return made
