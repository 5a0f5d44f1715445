"""Active learning of image quality on RE-MADE TID2013 images (the form of Fig. 5).

    python -m rank_ssl.main --config=experiments/active_iqa_tid2013_kodak.py --workdir=runs/active

What is labeled at once is the five levels of one reference and one distortion type: 19 references
x 12 types are 228 units (the paper has 24 types of the original images, 456), of which those of two
references select the best step. It trains on a tenth of the others, labels the tenth that it is
least certain of (eq. 15), and so on (Algorithm 1); --config.active.rule=random is the baseline. The
curves of both:

    python -m rank_ssl.curves --config=experiments/active_iqa_tid2013_kodak.py \
        --arms=random,certainty --seeds=3 --workdir=runs/active_curves

Data, weights and the other settings are those of experiments/iqa_tid2013_kodak.py. Arguments,
behind a colon and combined by comma:

    pool       a head that pools the convolution features, where no dense weights are at hand
    evidence   a scale for two CPU cores
    smoke      seconds, on tiny made data, without weights

The paper's settings and ours (6.1.3):

    setting              paper                         here
    first labels         10 % of the units             the same
    T, S, K              9, 10 %, 100                  the same; K of the 160 pairs of 20 sub-images
    references           19 for training               17, 2 for validation, 5 for test
    trained from         the last parameters           the same (active.restart: the initial ones)
    steps of a cycle     not given                     5,000
    ranked in training   not given                     ladders of the unlabeled folders
"""

import dataclasses

from experiments import _active, iqa_tid2013_kodak
from rank_ssl import config
from rank_ssl.tasks.iqa import IQA

ARGUMENTS = iqa_tid2013_kodak.ARGUMENTS


def get_config(text: str = '') -> config.Config:
    """The paper's run, or what the arguments make of it."""
    given = config.arguments(text, allowed=ARGUMENTS, experiment=__file__)
    made = iqa_tid2013_kodak.get_config(text)
    _active.ask(made)
    made.data.unlabeled_labeled = False  # an image that is distorted already makes no ladder
    made.steps = 5_000
    if 'evidence' in given:
        _active.evidence(made, steps=120)
        assert isinstance(made.task, IQA)
        made.task = dataclasses.replace(made.task, size=64)
    if 'smoke' in given:
        _active.smoke(made)
    return made
