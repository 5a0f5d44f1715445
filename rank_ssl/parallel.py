"""The mesh over all devices, and batches laid out on it: G, the groups, over the 'data' axis."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh 'data' over all devices of all processes (or over those given)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ('data',), (AxisType.Auto,), devices=devices)


def over_groups(mesh: Mesh) -> NamedSharding:
    """Leading axis split over the devices, the rest whole."""
    return NamedSharding(mesh, PartitionSpec('data'))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def layout(groups: int, devices: int, accumulate: int = 1) -> tuple[int, int]:
    """(G padded, parts): equal groups on each device, in equal parts, `accumulate` at most.

    A part has as few groups as `accumulate` parts allow, and there are as few parts as hold all
    groups. The added groups weigh nothing: their masks are False.
    """
    per_device = -(-groups // devices)
    at_once = -(-per_device // accumulate)
    parts = -(-per_device // at_once)
    return devices * parts * at_once, parts


def process_groups(padded: int, mesh: Mesh) -> range:
    """The groups of 0..padded-1 that lie on this process's devices: the ones it has to make."""
    rows = over_groups(mesh).addressable_devices_indices_map((padded,)).values()
    starts = [index[0].indices(padded) for index in rows if index is not None]
    low, high = min(s[0] for s in starts), max(s[1] for s in starts)
    if sum(s[1] - s[0] for s in starts) != high - low:
        raise ValueError(f'the devices of process {jax.process_index()} are not neighbours')
    return range(low, high)


def to_devices(batch: Any, mesh: Mesh) -> Any:
    """Each process's rows of a batch as global arrays, split over the devices by group."""
    sharding = over_groups(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), batch
    )


def replicate(tree: Any, mesh: Any) -> Any:
    """Every array whole on every device of every process."""
    whole = replicated(mesh)

    def place(array: Any) -> Any:
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(array)))
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, whole, lambda index: host[index])

    return jax.tree.map(place, tree)
