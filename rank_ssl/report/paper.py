"""The paper's numbers, by data set, metric and arm."""

import re
from collections.abc import Sequence

# Distortion types in the order of TID2013's numbers, 01 to 24, and in that of Table 4.
TID2013 = (
    'white_noise',
    'colour_noise',
    'spatially_correlated_noise',
    'masked_noise',
    'high_frequency_noise',
    'impulse_noise',
    'quantization_noise',
    'gaussian_blur',
    'denoising',
    'jpeg',
    'jpeg2000',
    'jpeg_transmission',
    'jpeg2000_transmission',
    'pattern_noise',
    'blockwise',
    'mean_shift',
    'contrast',
    'saturation',
    'multiplicative_noise',
    'comfort_noise',
    'lossy_noisy_compression',
    'colour_quantization',
    'chromatic_aberration',
    'sparse_sampling',
)
LIVE = ('jpeg2000', 'jpeg', 'white_noise', 'gaussian_blur', 'fast_fading')

# Data set -> what it is, and the set whose published numbers stand beside it.
SETS = {
    'tid2013': ('TID2013', 'tid2013'),
    'tid2013_kodak': ("TID2013's scores, images re-made from Kodak's", 'tid2013'),
    'live': ('LIVE', 'live'),
}
Scores = dict[str, float]  # 'all' or a distortion type -> correlation


def _of_types(names: Sequence[str], values: str, whole: float) -> Scores:
    listed = map(float, values.split())
    return {**dict(zip(names, listed, strict=True)), 'all': whole}


# Tables 1, 2 and 4.
PAPER: dict[tuple[str, str], dict[str, Scores]] = {
    ('tid2013', 'lcc'): {
        'baseline': {'all': 0.663},
        'ranking': {'all': 0.566},
        'finetunerandom': {'all': 0.775},
        'finetunehard': {'all': 0.782},
        'finetuning': {'all': 0.799},
        'multitaskrandom': {'all': 0.802},
        'multitaskhard': {'all': 0.810},
        'multitask': {'all': 0.827},
    },
    ('tid2013', 'srocc'): {
        'baseline': {'all': 0.612},
        'ranking': {'white_noise': 0.891, 'all': 0.623},
        'finetunerandom': {'all': 0.738},
        'finetunehard': {'all': 0.748},
        'finetuning': {'all': 0.780},
        'multitaskrandom': {'all': 0.770},
        'multitaskhard': {'all': 0.779},
        'multitask': _of_types(
            TID2013,
            '.780 .658 .882 .424 .839 .762 .852 .861 .799 .879 .909 .744 '
            '.824 .458 .658 .198 .554 .669 .689 .760 .882 .742 .645 .900',
            0.806,
        ),
    },
    ('live', 'lcc'): {'multitask': _of_types(LIVE, '.972 .978 .988 .982 .971', 0.976)},
    ('live', 'srocc'): {'multitask': _of_types(LIVE, '.971 .978 .985 .979 .969', 0.973)},
}
# Other names of the paper's arms, letters only.
ALIASES = {
    'rankiqa': 'ranking',
    'finetune': 'finetuning',
    'rankingfinetune': 'finetuning',
    'rankingfinetuning': 'finetuning',
    'rankiqaft': 'finetuning',
    'mtrankiqa': 'multitask',
}

# Table 3, LCC on TID2013: on all images, and the gain on those of seen and of unseen types.
TABLE3: dict[str, tuple[float, float | None, float | None]] = {
    'baseline': (0.687, None, None),
    'types_7': (0.803, 0.102, 0.016),
    'types_11': (0.817, 0.102, 0.032),
    'types_15': (0.823, 0.104, 0.067),
    'types_all': (0.829, 0.109, 0.075),
}

# Table 5, MAE on UCF_CC_50: the five splits and their mean, as printed (that of the last row's
# splits is 279.75).
TABLE5 = {
    'baseline_scratch': (701.41, 394.52, 497.57, 263.56, 415.23, 454.45),
    'baseline_single': (570.01, 350.63, 334.89, 184.79, 202.41, 328.54),
    'baseline': (532.85, 307.43, 266.75, 216.96, 216.35, 308.06),
    'finetune': (552.68, 375.38, 241.28, 211.66, 247.70, 325.73),
    'multitask_random': (462.71, 345.31, 218.71, 226.44, 210.19, 292.67),
    'multitask_hard': (460.35, 343.91, 208.23, 221.75, 205.57, 287.96),
    'multitask': (443.68, 340.31, 196.76, 218.48, 199.54, 279.60),
}


def known_as(arm: str) -> str:
    """The arm's name in PAPER."""
    letters = re.sub('[^a-z]', '', arm.lower())
    return ALIASES.get(letters, letters)
