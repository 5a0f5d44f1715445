"""Multi-task crowd counting on UCF_CC_50, one fold of five (section 6.2, Tables 5 and 6).

    python -m rank_ssl.main --config=experiments/crowd_ucf_cc_50.py --config.data.fold=1 \\
        --workdir=runs/ucf_1

trains on four folds and tests on the one named, 1 to 5; the published numbers are means over all
five. It needs the data set below $RANK_SSL_DATA or --config.data.manual_dir, and ImageNet VGG-16
weights (--config.model.weights=FILE). Arguments, behind a colon and combined by comma:

    evidence           a scale for two CPU cores: 96 px, conv1-conv3 frozen
    smoke              seconds, on tiny made data, without weights

The baseline is `--config.regime=baseline`: the same labels, parameters and steps, no ranking.
`--config.data.part=one_scene` draws images 41 and 46, one scene, as one.

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
    patches              56..448 px, three scales      the same range, sides even in the
                         down and one up               logarithm
    folds                five of ten images            the released lists (data_prep/ucf_cc_50)
    unlabeled images     1,180 found by keyword or     the training images themselves, unless
                         256 by example, never         folders are named
                         released
    validation           none                          10 % of training (4 images), selects the
                                                       best step
    image size           not given (at most 800 px     as published: 1,024 px at most
                         in the released code)
"""

from experiments import _crowd
from rank_ssl import config
from rank_ssl.tasks.crowd import Crowd

ARGUMENTS = ('evidence', 'smoke')


def get_config(text: str = '') -> config.Config:
    """The paper's run on fold 1, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    task = Crowd()
    made = config.Config(task=task)
    _crowd.paper(made)
    made.data.dataset = 'ucf_cc_50'
    made.data.fold = 1
    if 'evidence' in given:
        _crowd.evidence(made, task)
    if 'smoke' in given:
        _crowd.smoke(made, task)
    return made
