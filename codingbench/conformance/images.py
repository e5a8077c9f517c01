"""Tasks and images to test plug-ins on: the embedded data set, brought to several shapes."""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from codingbench.datasets import DEFAULT_DATASET, fetch, get_info, load
from codingbench.datasets.pixels import to_unit
from codingbench.encoder import Task

Images = Float[Tensor, "batch channel height width"]

_PHOTOS = 16


@dataclass(frozen=True)
class Scene:
    """The task and the shape of the images that a plug-in is tested on.

    ``halves``: the backbone has a stem that halves the resolution.
    """

    channels: int = 1
    height: int = 28
    width: int = 28
    num_steps: int = 4
    num_classes: int = 10
    halves: bool = False

    def task(self) -> Task:
        """Return the task, with the standardisation of the embedded data set."""
        info = get_info(DEFAULT_DATASET)
        mean, std = (values * self.channels for values in (info.mean, info.std))
        return Task(
            self.num_steps, self.num_classes, self.channels, self.height, self.width, mean, std
        )

    def images(self, count: int, first: int = 0) -> Images:
        """Return ``count`` real images, rescaled, starting with the ``first``.

        Each channel is a different photograph.
        """
        shape = count, self.channels, self.height, self.width
        chosen = torch.arange(first, first + count * self.channels) % _PHOTOS
        scaled = F.interpolate(photos()[chosen], shape[2:], mode="area")
        return scaled.reshape(shape)

    def extremes(self) -> dict[str, Images]:
        """Return single images for which careless codings divide by zero, by name."""
        shape = 1, self.channels, self.height, self.width
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        flat = {"black": 0.0, "white": 1.0, "grey": 0.5}
        return {name: torch.full(shape, value) for name, value in flat.items()} | {"noise": noise}

    def __str__(self) -> str:
        halves = " (stem of half the size)" if self.halves else ""
        return f"{self.channels}x{self.height}x{self.width}{halves}"


@cache
def photos() -> Float[Tensor, "image 1 28 28"]:
    """Return test images of the embedded data set in [0, 1], of all classes."""
    return to_unit(load(fetch(DEFAULT_DATASET, None), "test", _PHOTOS).images)
