"""The figures of active learning are looked into: lines, bars, the line of all labels, bins."""

import io

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from rank_ssl import plots

SHARES = [0.1, 0.2, 0.4]


def fits(figure):
    """Whether nothing that it shows is cut off at its edge."""
    figure.savefig(io.BytesIO(), format='png', dpi=60)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


def curves(**options):
    found = {'random': (SHARES, [[9, 6, 3], [7, 6, 1]]), 'certainty': (SHARES, [[8, 4, 2]])}
    return plots.label_curves(
        found, metric='test/mae', **{'lower_is_better': True, 'full': [1.0, 3.0], **options}
    )


def test_a_line_is_the_mean_over_seeds_and_its_bars_one_deviation():
    (axes,) = curves().axes
    random, certainty = axes.containers
    np.testing.assert_allclose(random.lines[0].get_ydata(), [8, 6, 2])
    ends = np.array(random.lines[2][0].get_segments())[..., 1]
    np.testing.assert_allclose(ends, [[8 - 2**0.5, 8 + 2**0.5], [6, 6], [2 - 2**0.5, 2 + 2**0.5]])
    np.testing.assert_allclose(certainty.lines[0].get_ydata(), [8, 4, 2])
    assert not certainty.lines[2] and random.has_yerr and not certainty.has_yerr


def test_shares_are_percent_and_bars_of_two_rules_stand_apart():
    (axes,) = curves().axes
    x = [np.asarray(container.lines[0].get_xdata()) for container in axes.containers]
    np.testing.assert_allclose((x[0] + x[1]) / 2, [10, 20, 40])
    assert (x[0] < x[1]).all() and np.abs(x[0] - [10, 20, 40]).max() < 0.5
    assert axes.get_xlabel() == 'labeled, % of the training units'


def test_all_labels_are_a_dashed_line_with_its_deviation():
    (axes,) = curves().axes
    (line,) = (line for line in axes.lines if line.get_linestyle() == '--')
    assert list(line.get_ydata()) == [2, 2]
    (band,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    np.testing.assert_allclose([band.get_y(), band.get_height()], [2 - 2**0.5, 2 * 2**0.5])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ['random, 2 seeds', 'certainty, 1 seed', 'all labels, 2 seeds']


@pytest.mark.parametrize('full, lines', [([], 0), ([2.0], 1)])
def test_the_line_of_one_seed_or_of_none(full, lines):
    (axes,) = curves(full=full).axes
    assert sum(line.get_linestyle() == '--' for line in axes.lines) == lines
    assert not axes.patches


@pytest.mark.parametrize('lower, words', [(True, 'lower'), (False, 'higher')])
def test_the_axis_says_what_is_better(lower, words):
    figure = curves(lower_is_better=lower)
    assert figure.axes[0].get_ylabel() == f'test/mae ({words} is better)'
    assert fits(figure)


def test_bars_are_explained_where_there_are_any():
    assert 'deviation' in curves().axes[0].get_title()
    one = {'certainty': (SHARES, [[8, 4, 2]])}
    figure = plots.label_curves(one, metric='m', lower_is_better=True)
    assert figure.axes[0].get_title() == ''


def heights(axes):
    return [np.array([bar.get_height() for bar in bars]) for bars in axes.containers]


def test_bars_are_shares_of_the_pool_and_of_the_labeled_units():
    pool, labeled = [0.0, 0.5, 1.0, 1.0], [0.97]
    figure = plots.certainty_histograms({'cycle 0': (pool, labeled)})
    (axes,) = figure.axes
    of_pool, of_labeled = heights(axes)
    assert len(of_pool) == 20
    assert of_pool[[0, 10, 19]].tolist() == [0.25, 0.25, 0.5] and of_pool.sum() == 1
    assert of_labeled[19] == of_labeled.sum() == 1
    assert axes.get_title() == 'cycle 0\nC = 1: pool 50%, labeled 0%'
    assert fits(figure)


def test_a_value_on_an_edge_is_in_the_bar_above_it():
    values = np.arange(80, 101) / 100  # one edge each
    (axes,) = plots.certainty_histograms({'': (values, values)}).axes
    for found in heights(axes):
        np.testing.assert_allclose(found, [*[1 / 21] * 19, 2 / 21])


def test_panels_share_their_axes_from_below_the_smallest_value():
    panels = {f'cycle {t}': ([0.63 + t / 100, 1.0], [0.9, np.nan]) for t in range(7)}
    figure = plots.certainty_histograms(panels)
    assert [axes.get_title().split('\n')[0] for axes in figure.axes] == list(panels)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        left = min(bar.get_x() for bars in axes.containers for bar in bars)
        assert 0.59 < left < 0.61
        assert 'labeled 0%' in axes.get_title()  # of one: nan is none
    assert fits(figure)


def test_an_empty_part_has_no_bar_and_no_share():
    (axes,) = plots.certainty_histograms({'cycle 9': ([], [1.0, 0.85])}).axes
    of_pool, of_labeled = heights(axes)
    assert of_pool.sum() == 0 and of_labeled.sum() == 1
    assert axes.get_title() == 'cycle 9\nC = 1: labeled 50%'


def test_no_panel_is_an_empty_figure():
    assert fits(plots.certainty_histograms({}))
