"""Multi-task crowd counting on ShanghaiTech (section 6.2, Table 7).

    python -m rank_ssl.main --config=experiments/crowd_shtech.py --workdir=runs/shtech

needs the data set below $RANK_SSL_DATA or --config.data.manual_dir, and ImageNet VGG-16 weights
(--config.model.weights=FILE). Arguments, behind a colon and combined by comma:

    A (default) or B   the part of the data set
    evidence           a scale for two CPU cores: 30 labels, 64 px, conv1-conv3 frozen
    smoke              seconds, on tiny made data, without weights

The baseline is `--config.regime=baseline`: the same labels, parameters and steps, no ranking.

The paper's settings and ours (6.2):

    setting              paper                         here
    network              VGG-16 to conv5_3 + 3x3       the same
    initialisation       ImageNet                      the same
    optimiser            SGD, momentum not given       SGD, momentum .9 (released IQA code)
    rate, multi-task     not given (1e-6 for           1e-6, gradient norm clipped at 100
                         ranking and fine-tuning)
    reduction            eq. 8 and 17                  caffe: the paper's sums diverge with
                                                       lambda = 100 at 1e-8 and above
    decay of the rate    x0.1 every 5,000 of 10,000    the same
    weight decay         5e-4                          the same
    batch                25 ranked + 25 labeled        5 groups of 5 + 5
    lambda               100                           the same
    margin               not given                     0 (as the one public re-implementation)
    k, s, r              5, 0.75, 8                    the same
    patches              56..448 px, one per image     the same, sides even in the logarithm
                         and epoch
    unlabeled images     2,229 found on the web,       the training images themselves, unless
                         never released                folders are named
    validation           none                          10 % of training, selects the best step
"""

from experiments import _crowd
from rank_ssl import config
from rank_ssl.tasks.crowd import Crowd

ARGUMENTS = ('A', 'B', 'evidence', 'smoke')


def get_config(text: str = '') -> config.Config:
    """The paper's run on part A, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__, one_of=('A', 'B'))
    task = Crowd()
    made = config.Config(task=task)
    _crowd.paper(made)
    made.data.dataset = 'shanghaitech'
    made.data.part = 'part_B' if 'B' in given else 'part_A'
    if 'evidence' in given:
        _crowd.evidence(made, task)
        made.data.labels = 30
        made.data.unlabeled_labeled = False  # the other 240 training images serve unlabeled
        made.data.test_stride = 2
    if 'smoke' in given:
        _crowd.smoke(made, task)
        made.data.labels = 4
        made.data.unlabeled_labeled = False
    return made
