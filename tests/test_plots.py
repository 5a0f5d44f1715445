"""Figures are looked into: what they draw, where, and what they write."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rank_ssl import plots


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(figure):
    """The figure's pixels, u8[H, W, 3]; nothing that it shows is cut off at its edge."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=60)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01
    return np.asarray(Image.open(file).convert('RGB'))


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
