"""The process of one framework in the bench of the training step: answers commands on its pipe.

    python -m rank_ssl.bench.stepper ours|torch SETTING

SETTING is a `Setting` as JSON. Each line of stdin is a command, each line of stdout its answer.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rank_ssl import jobs
from rank_ssl.models.pixels import CONVENTIONS
from rank_ssl.models.vgg import LAYOUTS, block_channels

MATMUL = 2048  # side
PIXELS = 'torch'  # the convention
STRIDE = 16


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is stepped: a VGG to its last convolution, without its last pooling, and 3x3 density."""

    backbone: str = 'vgg16'
    width: float = 1.0
    side: int = 224  # px
    batch: int = 8
    rate: float = 1e-8
    momentum: float = 0.9

    @property
    def layers(self) -> list[tuple[int, int, int]]:
        """(block from 0, inputs, outputs) of each convolution, the head's last."""
        inputs, found = 3, []
        channels = block_channels(self.width)
        for block, count in enumerate(LAYOUTS[self.backbone]):
            for _ in range(count):
                found.append((block, inputs, channels[block]))
                inputs = channels[block]
        return [*found, (len(channels) - 1, inputs, 1)]

    @property
    def flops(self) -> int:
        """FLOP of an image in the convolutions: three times those of the forward pass."""
        return sum(6 * 9 * i * o * (self.side // 2**b) ** 2 for b, i, o in self.layers)


class Arrays(NamedTuple):
    """What both start from."""

    kernels: list[np.ndarray]  # f32[3, 3, I, O] of each layer
    image: np.ndarray  # u8[N, S, S, 3]
    target: np.ndarray  # f32[N, s, s]


class Framework(NamedTuple):
    """A training state and what can be asked of it."""

    step: Callable[[], float]  # its loss
    matmul: Callable[[], Any]  # of two f32[MATMUL, MATMUL], or of the step's type on a GPU
    peak: Callable[[], int]  # bytes
    start: int  # bytes held before anything was made
    device: str
    dtype: str
    threads: int


def draw(setting: Setting) -> Arrays:
    """He normal kernels, a near-zero head, noise images and maps of some persons: from one seed."""
    rng = np.random.Generator(np.random.Philox(0))
    kernels = []
    for _, i, o in setting.layers:
        deviation = 0.001 if o == 1 else (2 / (9 * i)) ** 0.5
        kernels.append(rng.normal(size=(3, 3, i, o), scale=deviation).astype(np.float32))
    shape = (setting.batch, setting.side, setting.side, 3)
    image = rng.integers(0, 256, shape).astype(np.uint8)
    cells = setting.side // STRIDE
    target = rng.exponential(0.2, (setting.batch, cells, cells)).astype(np.float32)
    return Arrays(kernels, image, target)


def make_ours(setting: Setting) -> Framework:
    """The package's own training step, without ranked images."""
    import jax
    import jax.numpy as jnp
    import optax

    from rank_ssl.models import make_network
    from rank_ssl.models.network import make_apply
    from rank_ssl.parallel import make_mesh, replicate, to_devices
    from rank_ssl.step import compiled_lean, create_state, make_train_step
    from rank_ssl.tasks.crowd import Crowd
    from rank_ssl.types import Batch

    device = jax.devices()[0]
    on_gpu = device.platform == 'gpu'
    dtype = 'bfloat16' if on_gpu else 'float32'
    started = resident()
    task = Crowd(size=setting.side)
    network = make_network(
        backbone=setting.backbone, width=setting.width, blocks=5, last_pool=False, frozen_blocks=0,
        dtype=dtype, remat=False, pixels=PIXELS, head=task.head(),
    )  # fmt: skip
    made = draw(setting)
    tx = optax.sgd(setting.rate, momentum=setting.momentum)
    params = jax.tree.map(jnp.asarray, our_params(setting, made.kernels))
    mesh = make_mesh([device])
    # As in training: laid out as a step leaves it, or the second step would compile again.
    state = create_state(make_apply(network), params, tx, jax.random.key(0))
    state = replicate(state, mesh)
    none = np.zeros((1, 0), np.float32)
    fields: dict[str, Any] = {
        'image': made.image[None],
        'phi': none,
        'segments': none.astype(np.int32),
        'ranked_where': none.astype(bool),
        'target': made.target[None],
        'labeled_where': np.ones((1, setting.batch), bool),
    }
    batch = to_devices(Batch(**fields), mesh)
    del params, made
    train_step = compiled_lean(make_train_step(task, tx, rank_weight=0, margin=0, mesh=mesh))

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch)
        return float(metrics['loss'])

    square = jnp.ones((MATMUL, MATMUL), dtype)
    product = jax.jit(jnp.matmul)

    def peak() -> int:
        return device.memory_stats()['peak_bytes_in_use'] if on_gpu else high_water()

    return Framework(
        step,
        lambda: product(square, square).block_until_ready(),
        peak,
        0 if on_gpu else started,
        f'{device.platform} {device.device_kind}',
        dtype,
        len(jobs.usable_cores()),
    )


def our_params(setting: Setting, kernels: list[np.ndarray]) -> dict[str, Any]:
    """The network's parameters with these kernels and zero biases."""
    params: dict[str, Any] = {'backbone': {}}
    place: dict[int, int] = {}
    for (block, _, o), kernel in zip(setting.layers[:-1], kernels[:-1], strict=True):
        place[block] = place.get(block, 0) + 1
        name = f'block{block + 1}_conv{place[block]}'
        params['backbone'][name] = {'kernel': kernel, 'bias': np.zeros(o, np.float32)}
    params['head'] = {'kernel': kernels[-1], 'bias': np.zeros(1, np.float32)}
    return params


def make_torch(setting: Setting) -> Framework:
    """The same arithmetic as a torch user writes it, channels_last; autocast on a GPU."""
    torch: Any = importlib.import_module('torch')
    on_gpu = torch.cuda.is_available()
    device = torch.device('cuda' if on_gpu else 'cpu')
    dtype = torch.bfloat16 if on_gpu else torch.float32
    threads = len(jobs.usable_cores())
    torch.set_num_threads(threads)
    started = resident()
    made = draw(setting)
    net = torch_network(torch, setting, made.kernels).to(device, memory_format=torch.channels_last)
    rule = torch.optim.SGD(net.parameters(), lr=setting.rate, momentum=setting.momentum)
    image = torch.from_numpy(made.image).to(device)
    target = torch.from_numpy(made.target).to(device)
    del made
    colour = CONVENTIONS[PIXELS]
    mean, std = (torch.tensor(value, device=device) for value in (colour.mean, colour.std))

    def step() -> float:
        rule.zero_grad(set_to_none=True)
        x = ((image * colour.scale - mean) / std).permute(0, 3, 1, 2)  # channels_last as it is
        with torch.autocast(device.type, dtype, enabled=on_gpu):
            density = net(x)[:, 0].float()
        loss = ((density - target) ** 2).sum((1, 2)).mean()
        loss.backward()
        rule.step()
        return float(loss.detach())

    square = torch.ones((MATMUL, MATMUL), dtype=dtype, device=device)

    def matmul() -> None:
        square @ square
        if on_gpu:
            torch.cuda.synchronize()

    return Framework(
        step,
        matmul,
        torch.cuda.max_memory_allocated if on_gpu else high_water,
        0 if on_gpu else started,
        f'gpu {torch.cuda.get_device_name()}' if on_gpu else 'cpu',
        'bfloat16' if on_gpu else 'float32',
        threads,
    )


def torch_network(torch: Any, setting: Setting, kernels: list[np.ndarray]) -> Any:
    """The layers with these kernels and zero biases."""
    parts: list[Any] = []
    before = 0
    for (block, i, o), kernel in zip(setting.layers, kernels, strict=True):
        parts += [torch.nn.MaxPool2d(2)] * (block - before)
        before = block
        conv = torch.nn.Conv2d(i, o, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
            conv.bias.zero_()
        parts += [conv, torch.nn.ReLU(inplace=True)]
    return torch.nn.Sequential(*parts[:-1])


def resident() -> int:
    """Bytes resident now."""
    return _status('VmRSS') or high_water()


def high_water() -> int:
    """Bytes resident at most since the program began."""
    scale = 1 if sys.platform == 'darwin' else 1024
    # getrusage counts the parent before exec as well; /proc does not.
    return _status('VmHWM') or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _status(field: str) -> int:
    path = pathlib.Path('/proc/self/status')
    text = path.read_text(encoding='ascii') if path.exists() else ''
    found = [line.split() for line in text.splitlines() if line.startswith(f'{field}:')]
    return int(found[0][1]) * 1024 if found else 0


def answer(framework: Framework, command: str) -> dict[str, Any]:
    """What a command is answered with."""
    began = time.perf_counter()
    if command == 'step':
        loss = framework.step()
        return {'loss': loss, 'seconds': time.perf_counter() - began}
    if command == 'matmul':
        framework.matmul()
        return {'flops': 2 * MATMUL**3 / (time.perf_counter() - began)}
    return {'peak': framework.peak()}


def main() -> None:
    """Answers until stdin ends."""
    name, setting = sys.argv[1:]
    make = {'ours': make_ours, 'torch': make_torch}[name]
    # Libraries print to stdout as they like; the answers have it for themselves.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    framework = make(Setting(**json.loads(setting)))
    told = {name: getattr(framework, name) for name in ('start', 'device', 'dtype', 'threads')}
    print(json.dumps(told), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(framework, line.strip())), file=answers, flush=True)


if __name__ == '__main__':
    main()
