"""Drawn scenes: determinism, honest points, counts, and no shortcut to the count."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from data_prep.synthetic_crowd import people, scenes, source
from data_prep.synthetic_crowd.canvas import Camera, Canvas


@pytest.fixture(scope='module')
def drawn():
    """40 scenes of the default set: (image, points)."""
    result = []
    for i in range(40):
        rng = scenes.image_rng(0, 0, i)
        result.append(scenes.draw(rng, scenes.draw_shape(rng)))
    return result


def test_a_scene_depends_on_seed_split_and_index_alone():
    def bytes_of(seed, split, index):
        image, points = scenes.draw(scenes.image_rng(seed, split, index), (96, 128))
        return image.tobytes() + points.tobytes()

    first = bytes_of(0, 0, 3)
    assert bytes_of(0, 0, 3) == first
    assert len({first, bytes_of(1, 0, 3), bytes_of(0, 1, 3), bytes_of(0, 0, 4)}) == 4


def test_images_and_points_have_the_promised_form(drawn):
    for image, points in drawn:
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert 192 <= height <= 240 and 240 <= width <= 320
        assert points.shape[1:] == (2,)
        assert np.all((points >= 0) & (points <= (width, height)))


def test_counts_are_long_tailed_and_reach_zero():
    rng = np.random.default_rng(0)
    counts = np.array([scenes.draw_count(rng) for _ in range(4000)])
    assert counts.min() == 0 and counts.max() == scenes.MAX_COUNT
    assert 0.02 < (counts == 0).mean() < 0.06
    assert 33 < np.median(counts) < 45 and counts.mean() > 1.2 * np.median(counts)


def test_brightness_does_not_tell_the_count(drawn):
    counts = [len(points) for _, points in drawn]
    assert abs(spearmanr(counts, [image.mean() for image, _ in drawn])[0]) < 0.35


def test_a_requested_empty_scene_has_no_point():
    _, points = scenes.draw(scenes.image_rng(0, 0, 0), (96, 128), count=0)
    assert points.shape == (0, 2)


def test_a_point_lies_on_the_painted_head():
    camera = Camera(400, 400, horizon=50.0, near=200.0, pitch=0.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        canvas = Canvas(np.zeros((400, 400, 3), np.uint8))
        person = people.stand(rng, camera, 200.0, 380.0)
        canvas.owner = 1
        people.draw(rng, canvas, person, cheer=0.0, light=1.0)
        rows, columns = np.nonzero(canvas.owners == 1)
        assert canvas.owners[int(person.head_y), int(person.head_x)] == 1
        assert rows.max() == pytest.approx(380, abs=6)
        top = person.head_y - rows.min()
        assert 0.9 * person.radius < top < 2 * person.radius  # the hair's or hat's height
        near_head = columns[np.abs(rows - person.head_y) < 1]
        assert near_head.mean() == pytest.approx(person.head_x, abs=0.8 * person.radius)


def test_hidden_heads_are_not_annotated():
    person = people.Person(50.0, 90.0, 60.0, 50.0, 32.0, 4.0)
    owners = np.zeros((100, 100), np.int16)
    owners[20:95, 40:60] = 1
    assert scenes.visible_heads(owners, [person]).tolist() == [[50.0, 32.0]]
    owners[26:40, 40:60] = -1  # clutter in front of the head
    assert scenes.visible_heads(owners, [person]).shape == (0, 2)


def test_nearer_people_are_larger_and_painted_over_farther_ones():
    camera = Camera(400, 400, horizon=50.0, near=200.0, pitch=0.0)
    assert camera.person(400.0) == 200.0 and camera.person(50.0) == 0.0
    assert camera.row(camera.person(225.0)) == pytest.approx(225.0)


def test_a_larger_set_starts_with_the_smaller_one():
    small, large = (source.SOURCE('tiny', None, train=n) for n in (2, 5))
    for i in range(2):
        a = small.read(small.items()['train'][i], 'train', i)[0]
        b = large.read(large.items()['train'][i], 'train', i)[0]
        assert a['image'] == b['image'] and a['id'] == b['id']
