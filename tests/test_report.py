"""Tables against arithmetic by hand: means, deviations, order of columns, what a table is of."""

import dataclasses
import math

import pytest

from data_prep.tid2013.source import KINDS
from rank_ssl.report import LIVE, PAPER, TID2013, by_kind_table, table1


@dataclasses.dataclass(frozen=True)
class Cell:
    arm: str
    seed: int


def grid(runs, *, dataset='tid2013_kodak', part='', prefix='test/'):
    """(arm, seed, {'lcc': ...}) -> results as a grid of runs has them."""
    config = {'data': {'dataset': dataset, 'part': part}}
    return [
        (Cell(arm, seed), {**{prefix + k: v for k, v in values.items()}, 'config': config})
        for arm, seed, values in runs
    ]


RUNS = [
    ('baseline', 0, {'lcc': 0.5, 'srocc': 0.4, 'srocc/jpeg': 0.3, 'srocc/white_noise': 0.1}),
    ('multitask', 0, {'lcc': 0.8, 'srocc': 0.7, 'srocc/jpeg': 0.9, 'srocc/white_noise': 0.6}),
    ('baseline', 1, {'lcc': 0.7, 'srocc': 0.4, 'srocc/jpeg': 0.6, 'srocc/white_noise': 0.3}),
    ('multitask', 1, {'lcc': 0.8, 'srocc': 0.9, 'srocc/jpeg': 0.7, 'srocc/white_noise': 0.8}),
]


def cells(table):
    """The rows of a markdown table as lists of their cells."""
    rows = [line for line in table.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


def test_table1_has_means_deviations_and_the_paper_beside_them():
    table = table1(grid(RUNS))
    assert table.splitlines()[0] == (
        "**LCC and SROCC on the test images of tid2013_kodak (TID2013's scores, images re-made "
        "from Kodak's)**, mean ± deviation over seeds"
    )
    # The deviation of .5 and .7 is .2 / sqrt(2), of .7 and .9 too.
    assert cells(table) == [
        ['arm', 'seeds', 'LCC', 'SROCC',
         'LCC, the paper on TID2013', 'SROCC, the paper on TID2013'],
        ['---'] * 6,
        ['baseline', '2', '0.600 ± 0.141', '0.400 ± 0.000', '0.663', '0.612'],
        ['multitask', '2', '0.800 ± 0.000', '0.800 ± 0.141', '0.827', '0.806'],
    ]  # fmt: skip


def test_one_seed_has_no_deviation_and_an_own_arm_no_paper():
    arms = ['ranking', 'finetune', 'ranking_finetuning', 'wide']
    table = table1(grid([(arm, 3, {'lcc': 0.25, 'srocc': math.nan}) for arm in arms]))
    assert [row[1:] for row in cells(table)[2:]] == [
        ['1', '0.250', 'nan', '0.566', '0.623'],
        ['1', '0.250', 'nan', '0.799', '0.780'],
        ['1', '0.250', 'nan', '0.799', '0.780'],
        ['1', '0.250', 'nan', '', ''],
    ]


def test_a_set_that_the_paper_has_not_stands_alone():
    runs = grid(RUNS, dataset='biq2021', part='small', prefix='best/val/')
    table = table1(runs, prefix='best/val/')
    assert cells(table)[0] == ['arm', 'seeds', 'LCC', 'SROCC']
    assert cells(table)[2] == ['baseline', '2', '0.600 ± 0.141', '0.400 ± 0.000']
    assert '**LCC and SROCC on the validation images of biq2021 small**' in table
    by_kind = by_kind_table(runs, 'srocc', prefix='best/val/')
    assert [row[0] for row in cells(by_kind)[2:]] == ['baseline', 'multitask']


def test_types_stand_in_the_order_of_their_numbers_with_the_paper_below():
    table = by_kind_table(grid(RUNS, dataset='tid2013'), 'srocc')
    assert cells(table) == [
        ['arm', '#01', '#10', 'all'],
        ['---'] * 4,
        ['baseline', '0.200', '0.450', '0.400'],
        ['baseline, the paper on TID2013', '', '', '0.612'],
        ['multitask', '0.700', '0.800', '0.800'],
        ['multitask, the paper on TID2013', '0.780', '0.879', '0.806'],
    ]
    first, *_, last = table.splitlines()
    assert first == (
        '**SROCC by type of distortion on the test images of tid2013 (TID2013)**, mean over seeds'
    )
    assert last == '#01 white noise, #10 jpeg'


def test_all_24_types_stand_at_their_numbers():
    shuffled = sorted(KINDS.values())
    runs = [('multitask', 0, {'srocc': 0.5, **{f'srocc/{kind}': 0.5 for kind in shuffled}})]
    head, _, _, paper = cells(by_kind_table(grid(runs), 'srocc'))
    assert head == ['arm', *(f'#{number}' for number in KINDS), 'all']
    assert paper[1:] == [
        '0.780', '0.658', '0.882', '0.424', '0.839', '0.762', '0.852', '0.861', '0.799', '0.879',
        '0.909', '0.744', '0.824', '0.458', '0.658', '0.198', '0.554', '0.669', '0.689', '0.760',
        '0.882', '0.742', '0.645', '0.900', '0.806',
    ]  # fmt: skip


def test_the_types_are_those_that_the_data_have():
    assert tuple(KINDS.values()) == TID2013
    assert set(LIVE) - set(TID2013) == {'fast_fading'}


def test_live_stands_as_in_table_4():
    runs = [('multitask', 0, {'lcc': 0.5, **{f'lcc/{kind}': 0.1 for kind in sorted(LIVE)}})]
    table = by_kind_table(grid(runs, dataset='live'), 'lcc')
    assert cells(table)[0] == [
        'arm', 'jpeg2000', 'jpeg', 'white noise', 'gaussian blur', 'fast fading', 'all',
    ]  # fmt: skip
    assert cells(table)[3] == [
        'multitask, the paper on LIVE', '0.972', '0.978', '0.988', '0.982', '0.971', '0.976',
    ]  # fmt: skip
    assert '#' not in table and table.endswith('|')
    # Also where every type of the images has a number in TID2013.
    runs = [('multitask', 0, {'lcc': 0.5, 'lcc/jpeg': 0.1, 'lcc/jpeg2000': 0.1})]
    table = by_kind_table(grid(runs, dataset='live'), 'lcc')
    assert cells(table)[0] == ['arm', 'jpeg2000', 'jpeg', 'all']


def test_types_of_a_set_of_ones_own_come_last_and_a_missing_one_is_empty():
    runs = [
        ('baseline', 0, {'srocc': 0.5, 'srocc/rain': 0.1, 'srocc/jpeg': math.nan, 'srocc/fog': 0}),
        ('multitask', 0, {'srocc': 0.5, 'srocc/rain': 0.2, 'srocc/jpeg': 0.3}),
        ('multitask', 1, {'srocc': 0.5, 'srocc/rain': 0.2}),
    ]
    table = cells(by_kind_table(grid(runs, dataset='image_scores'), 'srocc'))
    assert table[0] == ['arm', 'jpeg', 'fog', 'rain', 'all']
    assert table[2] == ['baseline', 'nan', '0.000', '0.100', '0.500']
    assert table[3] == ['multitask', 'nan', '', '0.200', '0.500']


@pytest.mark.parametrize('name, metric', PAPER)
def test_the_papers_whole_is_near_the_mean_of_its_types(name, metric):
    for arm, scores in PAPER[name, metric].items():
        types = [value for kind, value in scores.items() if kind != 'all']
        if len(types) > 1:
            assert abs(sum(types) / len(types) - scores['all']) < 0.1, arm
