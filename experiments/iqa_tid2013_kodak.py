"""Image quality on RE-MADE TID2013 images with the real scores (the form of Tables 1 and 2).

    python -m rank_ssl.main --config=experiments/iqa_tid2013_kodak.py --workdir=runs/kodak

TID2013's 24 natural references are crops of the Kodak images; 12 of its types are made again from
them at the PSNR of TID2013's five levels and joined with the real MOS of the same reference, type
and level: 1,440 images. No number of it compares with a published one. It needs kodak24/ and
TID2013's score table below $RANK_SSL_DATA or --config.data.manual_dir, a folder of pristine images
to rank (--config.data.unlabeled_dirs=FOLDER, never those of the test), and ImageNet VGG-16 weights
(--config.model.weights=FILE). Arguments, behind a colon and combined by comma:

    pool       a head that pools the convolution features, where no dense weights are at hand
    evidence   a scale for two CPU cores: 96 px, conv1-conv3 frozen, pooled features
    smoke      seconds, on tiny made data, without weights

Settings as in experiments/iqa_tid2013.py.
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
    made.data.dataset = 'tid2013_kodak'
    made.data.unlabeled_set = 'ladders'
    made.margin = 0.5
    if 'pool' in given:
        task.last, made.model.last_pool = 'pool', False
    if 'evidence' in given:
        _iqa.evidence(made, task)
        task.head_bias = 4.5  # the middle of the scale: 300 steps are too few to find it
        made.data.test_stride = 2
    if 'smoke' in given:
        _iqa.smoke(made, task)
    return made
