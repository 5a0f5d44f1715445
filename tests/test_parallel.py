"""How groups are laid out on devices and in parts, against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rank_ssl import parallel


@pytest.mark.parametrize(
    'groups, devices, accumulate, expected',
    [
        (5, 1, 1, (5, 1)),
        (5, 1, 5, (5, 5)),
        (5, 4, 1, (8, 1)),
        (5, 4, 9, (8, 2)),
        (6, 1, 4, (6, 3)),  # four parts of two would forward eight groups for the same memory
        (5, 1, 4, (6, 3)),
        (1, 8, 3, (8, 1)),
    ],
)
def test_layout_of_hand_picked_cases(groups, devices, accumulate, expected):
    assert parallel.layout(groups, devices, accumulate) == expected


def test_layout_is_the_least_padding_of_the_smallest_parts():
    for groups, devices, accumulate in itertools.product(range(1, 14), range(1, 6), range(1, 8)):
        padded, parts = parallel.layout(groups, devices, accumulate)
        assert padded >= groups and 1 <= parts <= accumulate
        assert padded % (devices * parts) == 0
        possible = [
            (at_once, count)
            for at_once in range(1, groups + 1)
            for count in range(1, accumulate + 1)
            if devices * count * at_once >= groups
        ]
        assert (padded // (devices * parts), parts) == min(possible)


def test_one_process_makes_all_groups():
    mesh = parallel.make_mesh()
    padded = 3 * mesh.devices.size
    assert parallel.process_groups(padded, mesh) == range(padded)


class Placement:
    """The rows of the devices of one process, as a sharding over several processes tells them."""

    def __init__(self, rows):
        self._rows = rows

    def addressable_devices_indices_map(self, shape):
        return {f'device {i}': (slice(*row),) for i, row in enumerate(self._rows)}


def test_a_process_makes_the_groups_of_its_own_devices(monkeypatch):
    monkeypatch.setattr(parallel, 'over_groups', lambda mesh: Placement([(4, 6), (2, 4)]))
    assert parallel.process_groups(8, None) == range(2, 6)


def test_devices_of_a_process_that_are_not_neighbours_are_refused(monkeypatch):
    monkeypatch.setattr(parallel, 'over_groups', lambda mesh: Placement([(0, 2), (4, 6)]))
    with pytest.raises(ValueError, match='process 0 are not neighbours'):
        parallel.process_groups(8, None)


def test_arrays_arrive_on_the_mesh_as_they_were():
    mesh = parallel.make_mesh()
    assert mesh.axis_names == ('data',) and mesh.devices.size == jax.device_count()
    rows = np.arange(6 * mesh.devices.size, dtype=np.uint8).reshape(-1, 2, 3)
    found = parallel.to_devices({'rows': rows}, mesh)['rows']
    assert found.sharding == parallel.over_groups(mesh) and found.dtype == rows.dtype
    np.testing.assert_array_equal(found, rows)


def test_replicated_trees_keep_values_types_and_keys():
    mesh = parallel.make_mesh()
    tree = {'count': jnp.int32(7), 'kernel': np.eye(3, dtype=np.float32), 'key': jax.random.key(5)}
    found = parallel.replicate(tree, mesh)
    assert all(leaf.sharding == parallel.replicated(mesh) for leaf in jax.tree.leaves(found))
    assert found['count'] == 7 and found['count'].dtype == jnp.int32
    np.testing.assert_array_equal(found['kernel'], tree['kernel'])
    assert found['key'] == tree['key'] and found['key'].dtype == tree['key'].dtype
