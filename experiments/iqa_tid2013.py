"""Multi-task image quality assessment on TID2013 (section 6.1, Tables 1 and 2).

    python -m rank_ssl.main --config=experiments/iqa_tid2013.py --workdir=runs/tid2013

needs TID2013 and the Waterloo Exploration Database (the unlabeled images) below $RANK_SSL_DATA or
--config.data.manual_dir, and ImageNet VGG-16 weights (--config.model.weights=FILE: safetensors with
the fully connected layers; without them fc6 and fc7 are drawn). Any folder of pristine images
serves instead of Waterloo: --config.data.unlabeled_set=ladders --config.data.unlabeled_dirs=FOLDER.
Arguments, behind a colon and combined by comma:

    pool       a head that pools the convolution features, where no dense weights are at hand
    evidence   a scale for two CPU cores: 96 px, conv1-conv3 frozen, pooled features
    smoke      seconds, on tiny made data, without weights

The regimes of Table 1 are --config.regime=baseline, ranking, finetune and multitask.

The paper's settings and ours (6.1):

    setting              paper                         here
    network              VGG-16 to fc7 + one output    the same
    sub-images           224 px, never rescaled        the same
    batch                72 images                     12 groups of 5 ranked + 1 labeled; the
                                                       other regimes see 60 or 12 of these
                                                       (more: --config.data.groups)
    rate, multi-task     1e-5                          the same, gradient norm clipped at 100
    rate, ranking        1e-4, then 1e-6               --config.pretrain.rate=1e-4 (the default)
                                                       --config.optim.rate=1e-6
    decay of the rate    x0.1 every 10,000 of 50,000   the same
    weight decay         5e-4                          the same
    lambda               1                             1, with the reduction `caffe`
    margin               not given for multi-task      0.5 of 9 points (BUILD_NOTES.md)
    chains               17 types                      the same: 19 chains, both directions
    test                 mean of 30 sub-images         the same
    split                80/20 by reference, ten       the same, the seed is the repetition;
                         repetitions                   10 % of training selects the best step
"""

from experiments import _iqa
from rank_ssl import config
from rank_ssl.tasks.iqa import IQA

ARGUMENTS = ('pool', 'evidence', 'smoke')


def get_config(text: str = '') -> config.Config:
    """The paper's run, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    task = IQA(unit='MOS')
    made = config.Config(task=task)
    _iqa.paper(made)
    made.data.dataset = 'tid2013'
    made.margin = 0.5
    if 'pool' in given:
        task.last, made.model.last_pool = 'pool', False
    if 'evidence' in given:
        _iqa.evidence(made, task)
        task.head_bias = 4.5  # the middle of the scale: 300 steps are too few to find it
    if 'smoke' in given:
        _iqa.smoke(made, task)
    return made
