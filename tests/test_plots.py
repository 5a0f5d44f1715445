"""Figures are looked into: what they draw, where, and what they write."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rank_ssl import metrics, plots
from tests.figures import drawn


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_save_writes_a_png_in_a_new_folder_and_nothing_else(tmp_path):
    path = tmp_path / 'figures' / 'counts.png'
    for _ in range(2):
        plots.save(plots.counts([1, 2], [1, 3], title='Counts'), path)
    assert Image.open(path).format == 'PNG'
    assert [entry.name for entry in path.parent.iterdir()] == ['counts.png']


def test_a_save_that_fails_keeps_the_old_figure_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / 'counts.png'
    plots.save(plots.counts([1, 2], [1, 3], title='Counts'), path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError('no space left')

    monkeypatch.setattr(os, 'replace', full_disk)
    with pytest.raises(OSError, match='no space'):
        plots.save(plots.counts([1, 2], [5, 9], title='Counts'), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ['counts.png']


def test_no_global_figure_is_made():
    code = "import sys, rank_ssl.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], timeout=60).returncode == 0


def test_density_rows_share_a_scale_and_state_both_counts(rng):
    images = [rng.integers(0, 256, (48, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]
    truths = [rng.random((6, 8)), np.zeros((8, 4))]
    predictions = [3 * rng.random((6, 8)) - 1, np.zeros((8, 4))]
    figure = plots.density_rows(
        images, truths, predictions, [24, 0], [25.26, 0.04], ['a', 'b' * 50]
    )
    assert titles(figure) == [
        'a', 'true 24', 'predicted 25.3', '…' + 'b' * 39, 'true 0', 'predicted 0.0',
    ]  # fmt: skip
    maps = [axes.images[0] for axes in figure.axes[1:3]]
    assert [shown.get_clim() for shown in maps] == [(0, predictions[0].max())] * 2
    np.testing.assert_array_equal(maps[0].get_array(), truths[0])
    np.testing.assert_array_equal(maps[1].get_array(), predictions[0])
    assert maps[0].get_extent() == figure.axes[0].images[0].get_extent()
    assert sum(axes.get_ylabel() == 'persons per cell' for axes in figure.axes) == 2
    assert drawn(figure).std() > 20


def test_density_rows_refuse_maps_of_two_grids():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r'density maps of x: \(4, 4\) and \(2, 2\)'):
        plots.density_rows([image], [np.zeros((4, 4))], [np.zeros((2, 2))], [0], [0], ['x'])


def test_counts_title_holds_both_errors_and_the_diagonal_the_corners():
    figure = plots.counts([10, 20, 30], [13, 16, 30], title='Part A')
    (axes,) = figure.axes
    # Errors 3, 4 and 0: mean 7 / 3, root of 25 / 3.
    assert axes.get_title() == 'Part A\nMAE 2.33, MSE 2.89 persons, n = 3'
    (diagonal,) = axes.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert axes.get_xlim() == axes.get_ylim() == (9, 31)
    dots = axes.collections[0].get_offsets()
    np.testing.assert_array_equal(dots, [(10, 13), (20, 16), (30, 30)])
    assert axes.get_xscale() == 'linear'
    drawn(figure)


@pytest.mark.parametrize(
    ('true', 'predicted', 'scale'),
    [
        ([1, 200], [2, 150], 'log'),
        ([1, 100], [2, 90], 'linear'),
        ([0, 200], [2, 150], 'linear'),
        ([1, 200], [-3, 150], 'linear'),
        ([5], [5], 'linear'),
    ],
)
def test_counts_are_logarithmic_over_more_than_two_decades(true, predicted, scale):
    (axes,) = plots.counts(true, predicted, title='Counts').axes
    assert axes.get_xscale() == axes.get_yscale() == scale
    drawn(axes.figure)


def test_curves_leave_out_what_no_row_has():
    rows = [{'step': s, 'train/loss': 1 / s, 'train/ranking': np.nan} for s in range(1, 20)]
    rows += [{'step': s, 'val/mae': 100.0 / s, 'val/rank_accuracy': 0.5} for s in (10, 19)]
    figure = plots.curves(rows)
    assert titles(figure) == ['loss', 'validation mae', 'validation rank accuracy']
    (line,) = figure.axes[1].lines
    np.testing.assert_array_equal(line.get_xydata(), [(10, 10), (19, 100 / 19)])
    drawn(figure)
    assert titles(plots.curves([])) == []


def test_long_curves_add_means_that_keep_the_total():
    rows = [{'step': s, 'train/loss': float(s % 10)} for s in range(1000)]
    (axes,) = plots.curves(rows).axes
    raw, means = axes.lines
    assert len(raw.get_xdata()) == 1000
    np.testing.assert_allclose(means.get_ydata(), np.full(100, 4.5))


def test_a_ranked_set_stands_in_order_with_its_boxes_on_the_source(rng):
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    images = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    boxes = np.array([(20, 30, 40, 50), (0, 10, 60, 70), (10, 20, 50, 60)])
    figure = plots.ranked_set(image, images, [20, 60, 40], boxes=boxes)
    assert titles(figure) == ['source', 'φ = 60', 'φ = 40', 'φ = 20']
    for axes, k in zip(figure.axes[1:], (1, 2, 0), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), images[k])
    frames = [frame.get_bbox().extents.tolist() for frame in figure.axes[0].patches]
    assert frames == [[10, 0, 70, 60], [20, 10, 60, 50], [30, 20, 50, 40]]
    colours = [frame.get_edgecolor() for frame in figure.axes[0].patches]
    assert colours == [axes.patches[0].get_edgecolor() for axes in figure.axes[1:]]
    assert len(set(colours)) == 3
    drawn(figure)


def test_a_ladder_needs_no_boxes():
    image = np.zeros((8, 8, 3), np.uint8)
    figure = plots.ranked_set(image, [image, image], -np.arange(2))
    assert titles(figure) == ['source', 'φ = 0', 'φ = \N{MINUS SIGN}1']
    assert not any(axes.patches for axes in figure.axes)


def test_paired_joins_the_arms_of_one_seed():
    arms = {'baseline': [4.0, 6.0], 'multi_task': [3.0, 7.0]}
    (axes,) = plots.paired(arms, metric='MAE', lower_is_better=True).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[4, 3], [6, 7]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ['baseline', 'multi task']
    assert axes.get_ylabel() == 'MAE (lower is better)'
    bars = [c.get_segments()[0][0][1] for c in axes.collections if hasattr(c, 'get_segments')]
    assert bars == [5, 5]
    drawn(axes.figure)
    (axes,) = plots.paired(arms, metric='SROCC', lower_is_better=False).axes
    assert axes.get_ylabel() == 'SROCC (higher is better)'


def test_curves_leave_out_what_is_of_one_kind():
    rows = [{'step': 5, 'val/srocc': 0.9, 'val/srocc/jpeg': 0.8, 'val/lcc/gaussian_blur': 0.7}]
    assert titles(plots.curves(rows)) == ['validation srocc']


def dots(axes):
    """label -> sorted dots (x, y) of a scatter plot."""
    return {c.get_label(): sorted(map(tuple, c.get_offsets().tolist())) for c in axes.collections}


def test_scores_are_told_apart_by_kind_and_correlated_over_all():
    kinds = ['jpeg', '', 'white_noise', 'jpeg']
    figure = plots.scores([1, 2, 3, 9], [0, 3, 3, 9], kinds, unit='MOS')
    (axes,) = figure.axes
    want = metrics.lcc([1, 2, 3, 9], [0, 3, 3, 9]), metrics.srocc([1, 2, 3, 9], [0, 3, 3, 9])
    assert axes.get_title() == f'LCC {want[0]:.3f}, SROCC {want[1]:.3f}, n = 4'
    assert want[0] != want[1]
    assert dots(axes) == {'unknown': [(2, 3)], 'jpeg': [(1, 0), (9, 9)], 'white noise': [(3, 3)]}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ['unknown', 'jpeg', 'white noise']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('true, MOS', 'predicted, MOS')
    drawn(figure)


def test_24_kinds_have_24_looks(rng):
    kinds = [f'a_kind_of_distortion_{i:02d}' for i in range(24)]
    figure = plots.scores(rng.random(24), rng.random(24), kinds, unit='MOS')
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in figure.axes[0].collections
    }
    assert len(looks) == 24
    drawn(figure)
    (legend,), (axes,) = figure.legends, figure.axes
    assert legend.get_window_extent().x0 > axes.get_window_extent().x1


@pytest.mark.parametrize('kinds', [[], ['', '', '']])
def test_scores_without_kinds_need_no_legend(kinds):
    figure = plots.scores([1, 2, 3], [100, 300, 200], kinds, unit='DMOS')
    (axes,) = figure.axes
    assert not figure.legends
    assert axes.get_title() == 'LCC 0.500, SROCC 0.500, n = 3'
    # A ranking network's own scale is shown as it is, not squeezed by the diagonal.
    assert axes.get_ylim() == (90, 310) and axes.get_xlim() == (0.9, 3.1)
    drawn(figure)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('values', [([], []), ([1, 2], [3, 3]), ([5], [4])])
def test_scores_without_a_correlation_are_drawn(values):
    figure = plots.scores(*values, ['jpeg'] * len(values[0]), unit='MOS')
    assert figure.axes[0].get_title().startswith('LCC nan, SROCC nan')
    drawn(figure)


def test_levels_show_means_of_each_kind_on_common_scales():
    levels = [1, 2, 3, 1, 2, 3, 1, 1, 2, 2, 2]
    kinds = ['jpeg'] * 6 + ['blur'] + ['03'] * 3 + ['jpeg']
    scores = [9, 4, 1, 7, 4, 3, 0, 4, 2, 2, 7]
    figure = plots.levels(scores, levels, kinds, true=np.array(scores) * 10)
    assert titles(figure) == ['03', 'jpeg']  # 'blur' has one level
    panels, twins = figure.axes[:2], figure.axes[2:]
    assert [axes.lines[0].get_xydata().tolist() for axes in panels] == [
        [[1, 4], [2, 2]], [[1, 8], [2, 5], [3, 2]],
    ]  # fmt: skip
    assert [axes.lines[0].get_ydata().tolist() for axes in twins] == [[40, 20], [80, 50, 20]]
    band = panels[1].collections[0].get_paths()[0].vertices
    assert {tuple(v) for v in band.tolist()} >= {(1, 7), (1, 9), (3, 1), (3, 3)}
    assert len({axes.get_ylim() for axes in panels}) == len({t.get_ylim() for t in twins}) == 1
    assert [axes.get_ylabel() for axes in figure.axes] == ['predicted', '', '', 'true']
    drawn(figure)


def test_levels_without_true_scores_have_one_scale(rng):
    kinds = np.repeat([f'kind_{i}' for i in range(8)], 4)
    figure = plots.levels(rng.random(32), np.tile(range(4), 8), kinds)
    assert len(figure.axes) == len(titles(figure)) == 8
    drawn(figure)
    assert not plots.levels([1, 2], [0, 1], ['', '']).axes
    drawn(plots.levels([], [], [], true=[]))


def test_ladders_stand_row_by_row_behind_the_pristine_image(rng):
    image = rng.integers(0, 256, (30, 45, 3), np.uint8)
    chains = {name: rng.integers(0, 256, (n, 20, 20, 3), np.uint8) for name, n in
              (('white_noise', 3), ('jpeg', 2))}  # fmt: skip
    captions = {'jpeg': ['quality 43', 'quality 12'], 'white_noise': ['a', 'b', 'c']}
    figure = plots.ladders(image, chains, captions)
    assert titles(figure) == ['white noise', 'a', 'b', 'c', 'jpeg', 'quality 43', 'quality 12']
    want = [image, *chains['white_noise'], image, *chains['jpeg']]
    for axes, shown in zip(figure.axes, want, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), shown)
    drawn(figure)
    places = [axes.get_window_extent() for axes in figure.axes]
    tops = [round(place.y0) for place in places]
    assert tops == [tops[0]] * 4 + [tops[-1]] * 3 and tops[0] > tops[-1]
    ends = [(place.x0, place.x1) for place in places[:4]]
    assert all(a[1] < b[0] for a, b in zip(ends, ends[1:], strict=False))
    # Pixels stay square.
    assert places[0].width / places[0].height == pytest.approx(1.5)
    assert places[1].width == pytest.approx(places[1].height)


def test_ladders_refuse_a_chain_without_all_its_captions(rng):
    made = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match='argument 2 is shorter'):
        plots.ladders(made[0], {'jpeg': made}, {'jpeg': ['quality 43']})


def test_a_start_imports_neither_matplotlib_nor_the_statistics():
    """They take longer than all else that a refused start does."""
    code = (
        'import sys, rank_ssl.tasks, rank_ssl.stages, rank_ssl.plots as plots\n'
        'print(*({"matplotlib", "scipy.stats"} & {*sys.modules}))\n'
        'print(all(callable(getattr(plots, n)) for n in plots.__all__ if n != "SHOWN"))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ['', 'True']
    with pytest.raises(AttributeError, match='rank_ssl.plots has no attribute picture_book'):
        _ = plots.picture_book
