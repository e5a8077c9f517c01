"""The spikes of a trained network for one test image: by layer and step, with its logits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codingbench.backbone import Network
from codingbench.cells.data import find_sources
from codingbench.cells.weights import LoadedCell, restore
from codingbench.datasets import load
from codingbench.datasets.pixels import to_unit
from codingbench.errors import SpecError
from codingbench.neurons.declared import declaration, spikes_of
from codingbench.plugins.loading import NOTHING_SAID, OwnCode
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.training.evaluation import autocast, stream
from codingbench.training.graphs import tell_once

_SHOWN: Final = ("code", "neuron")
"""Kinds of layers whose values are shown."""


@dataclass(frozen=True)
class LayerSpikes:
    """The spikes of one layer for the image."""

    name: str
    spikes: Float[Tensor, "time neuron"]
    is_code: bool

    @property
    def rate(self) -> list[float]:
        """The share of values that are not 0, for each step."""
        return [float(share) for share in (self.spikes != 0).double().mean(1)]


@dataclass(frozen=True)
class Raster:
    """One test image in a trained network, with the weights after the last epoch."""

    cell: str
    image: Float[Tensor, "channel row column"]
    number: int
    """The place of the image among the test images, counted from 0."""
    label: int
    layers: list[LayerSpikes]
    logits: Float[Tensor, "time class"]

    @property
    def mean_logits(self) -> Float[Tensor, "time class"]:
        """The mean of the first t logits for each t; the largest is the prediction after step t."""
        steps = torch.arange(1, len(self.logits) + 1, dtype=self.logits.dtype)
        return self.logits.cumsum(0) / steps[:, None]


def raster_of(
    store: Store, key: str, number: int, data_dir: Path | None, own: OwnCode = NOTHING_SAID
) -> Raster:
    """Run one test image through the network of a finished cell, on the CPU.

    A random code is drawn anew, from the cell's seed: the image comes first there, which need not
    be so in the cell's own test.

    Args:
        store: the folder that holds the cell and its weights.
        key: the cell's key.
        number: the place of the image among the cell's test images, counted from 0.
        data_dir: folder of the data sets; None for the default.
        own: what the user says about plug-ins that do not ship with codingbench.

    Raises:
        SpecError: the cell is not finished or has changed, or has no such test image.
        CodingbenchError: the weights of the cell were not kept.
        DatasetError: the data set cannot be found or downloaded.
    """
    loaded = restore(store, key, data_dir, own)
    for line in loaded.changed:
        tell_once(line)
    cell = loaded.job.cell
    if not 0 <= number < cell.test_samples:
        raise SpecError(
            f"--image expects a number from 0 to {cell.test_samples - 1}, the last of the test "
            f"images of {key}, got {number}"
        )
    source = find_sources([loaded.job], data_dir)[cell.dataset]
    split = load(source, "test", cell.test_samples)
    image = to_unit(split.images[number : number + 1])
    layers, logits = _run(loaded, _layers(store, key), image)
    return Raster(
        cell=f"{cell} · {cell.dataset}",
        image=image[0],
        number=number,
        label=int(split.labels[number]),
        layers=layers,
        logits=logits,
    )


def _layers(store: Store, key: str) -> dict[str, str]:
    """Return the kind of each layer that emits, in the order in which they run."""
    rows = read(store, "layers", [key])
    rows = rows[rows["kind"].isin(_SHOWN)].sort_values("position", kind="stable")
    return dict(zip(rows["layer"], rows["kind"], strict=True))


def _run(
    loaded: LoadedCell, kinds: dict[str, str], image: Float[Tensor, "1 channel row column"]
) -> tuple[list[LayerSpikes], Float[Tensor, "time class"]]:
    cell, network = loaded.job.cell, loaded.network_on(image.device).eval()
    with loaded.conditions(), torch.no_grad(), _Recording(network, kinds) as recording:
        with autocast(image.device, cell.precision):
            logits = network(image, stream(cell.seed, "test")).float()[:, 0]
        emitted = recording.emitted(cell.num_steps)
    layers = [LayerSpikes(name, spikes, kinds[name] == "code") for name, spikes in emitted.items()]
    return layers, logits


class _Recording:
    """Keeps what some modules of a network return while the context is open."""

    def __init__(self, network: Network, names: dict[str, str]) -> None:
        modules = dict(network.named_modules())
        self._modules = {name: modules[name] for name in names if name in modules}
        self._outputs: dict[str, list[Tensor]] = {name: [] for name in self._modules}
        self._hooks: list[Any] = []

    def __enter__(self) -> "_Recording":
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_hook(self._keeper(name)))
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            declared = declaration(module)
            spikes = spikes_of(output, declared.output if declared else 0)
            if spikes is not None:
                self._outputs[name].append(spikes.detach().float().flatten())

        return keep

    def emitted(self, num_steps: int) -> dict[str, Tensor]:
        """Return the values [T, N] of each module that ran, of the one image.

        Time is the first axis of what a module returns, or its calls follow each other in time. A
        module that ran for fewer steps, because its input does not change, has the others empty.
        """
        found = {}
        for name, outputs in self._outputs.items():
            values = torch.cat(outputs) if outputs else torch.zeros(0)
            if len(values) and len(values) % num_steps == 0:
                found[name] = values.view(num_steps, -1)
        return found
