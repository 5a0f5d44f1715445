"""The contact sheet: each picture over its own lines, none cut off, and at most sixty."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rank_ssl import plots
from tests.figures import drawn


def pictures(count):
    rng = np.random.default_rng(0)
    shapes = rng.integers(5, 60, (count, 2))
    return [np.full((h, w, 3), n % 256, np.uint8) for n, (h, w) in enumerate(shapes)]


@pytest.mark.parametrize('count', [1, 2, 6, 7, 13])
def test_each_picture_stands_over_its_lines_in_reading_order(count):
    images = pictures(count)
    figure = plots.sheet(images, [f'{n}. C = 0.{n}\nfile {n}.jpg' for n in range(count)], title='t')
    drawn(figure)
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes] == list(range(count))
    title, *texts = figure.texts
    assert title.get_text() == 't'
    corners = [(round(-axes.get_position().y0, 4), axes.get_position().x0) for axes in figure.axes]
    assert corners == sorted(corners) and len(set(corners)) == count
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    for n, (axes, text, box) in enumerate(zip(figure.axes, texts, boxes, strict=True)):
        assert text.get_text() == f'{n}. C = 0.{n}\nfile {n}.jpg'
        place = axes.get_window_extent(renderer)
        assert box.y1 <= place.y0 and abs((box.x0 + box.x1) / 2 - (place.x0 + place.x1) / 2) < 1
        others = [*boxes[:n], *boxes[n + 1 :]]
        pictured = [other.get_window_extent(renderer) for other in figure.axes]
        assert not any(box.overlaps(other) for other in [*others, *pictured])


@pytest.mark.parametrize(('given', 'total'), [(60, 0), (61, 0), (60, 200), (3, 5)])
def test_at_most_sixty_are_shown_and_the_title_says_so(given, total):
    figure = plots.sheet(pictures(given), ['x'] * given, title='To label', total=total)
    shown, whole = min(given, 60), max(given, total)
    assert len(figure.axes) == shown
    more = f' (the first {shown} of {whole})' if whole > shown else ''
    assert figure.texts[0].get_text() == f'To label{more}'


def test_long_lines_keep_their_end_and_dollars_are_no_formula():
    name = 'folder/' * 9 + 'image $1.jpg'
    figure = plots.sheet(pictures(2), [f'1.\n{name}', 'a$b$'])
    drawn(figure)
    first, shown = figure.texts[1].get_text().split('\n')
    assert (first, shown[0], len(shown)) == ('1.', '…', 26) and name.endswith(shown[1:])
    assert figure.texts[2].get_text() == 'a$b$' and not figure.texts[2].get_parse_math()


def test_a_sheet_of_nothing_is_empty_and_captions_must_fit():
    assert drawn(plots.sheet([], [], title='none')).size
    with pytest.raises(ValueError, match='2 images and 1 captions'):
        plots.sheet(pictures(2), ['x'])


def test_the_picture_itself_is_shown():
    """Two squares, red and blue, in the sheet's pixels."""
    images = [np.full((40, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255))]
    pixels = drawn(plots.sheet(images, ['red', 'blue']))
    red, blue = (np.argwhere((pixels == colour).all(-1)) for colour in ((255, 0, 0), (0, 0, 255)))
    side = 1.75 * 60
    for found in (red, blue):
        assert abs(len(found) - side**2) < 0.05 * side**2
    assert red[:, 1].max() < blue[:, 1].min()
