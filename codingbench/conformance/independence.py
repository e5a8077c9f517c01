"""Checks that a result depends on its image only: on no neighbour, other batch or later step."""

from collections.abc import Iterator

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.cells.probe import generator_of
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Images
from codingbench.conformance.plugin import PluginUnderTest
from codingbench.encoder import Encoder

_ROUNDING = 1e-4  # relative tolerance for batches of equal size, which are computed alike
_FEW_SPIKES = 1e-2  # for another batch size, because rounding can add or remove spikes
_SMALL = 1e-5  # mean size of values whose relative differences are rounding
_DRAWS = 48
_SIGMAS = 6.0  # exceeded by chance about once in 10^7 comparisons


def distance(a: Tensor, b: Tensor) -> float:
    """Return the sum of |a - b|, relative to the larger of the sums of |a| and |b|.

    Values smaller than 1e-5 on average count as if they were that large. The gradient of a bias in
    front of a normalisation, for example, is 0 but for rounding, which differs with every backend.
    """
    scale = max(float(a.abs().sum()), float(b.abs().sum()), _SMALL * a.numel())
    return float((a - b).abs().sum()) / scale if scale > 0 else 0.0


@check(
    "own image",
    "independent of other images and of the place in the batch",
    "accuracy would depend on the batch size and on which images are tested together",
    needs=("runs", "no memory", "generator"),
)
def own_image(tested: PluginUnderTest) -> str:
    """Compare the result for an image alone, before bright images and after dim ones."""
    network = tested.network()
    module = tested.module(network)
    if isinstance(module, Encoder) and not module.is_deterministic:
        return _same_in_distribution(tested, network)
    alone, first, last = (tested.output(network, x)[:, at] for x, at in _batches(tested))
    by_others, by_size = distance(first, last), distance(first, alone)
    if by_others > _ROUNDING:
        raise Failed(f"other images in the batch change {100 * by_others:.2g} % of the result")
    if by_size > _FEW_SPIKES:
        raise Failed(f"the result for an image alone differs by {100 * by_size:.2g} %")
    return "the same alone and in a batch"


def _batches(tested: PluginUnderTest) -> Iterator[tuple[Images, int]]:
    """Yield three batches with the same image, and its place.

    The image has neither the brightest nor the darkest pixel of a batch with neighbours.
    """
    image = 0.1 + 0.5 * tested.images(1)
    neighbours = tested.images(3, first=3)
    yield image, 0
    yield torch.cat([image, neighbours]), 0
    yield torch.cat([0.2 * neighbours.flip(0), image]), 3


def _same_in_distribution(tested: PluginUnderTest, network: Network) -> str:
    """Compare random codes by their means per step, which may differ only by chance."""
    means = [
        torch.stack([tested.output(network, x, seed)[:, at].flatten(1).mean(1) for seed in seeds])
        for (x, at), seeds in zip(_batches(tested), _seeds(), strict=True)
    ]
    for first, second in ((0, 1), (1, 2)):
        a, b = means[first], means[second]
        spread = ((a.var(0) + b.var(0)) / _DRAWS).sqrt().clamp_min(1e-6)
        difference = float(((a.mean(0) - b.mean(0)).abs() / spread).max())
        if difference > _SIGMAS:
            cause = ("an image alone", "an image among other images")[first]
            raise Failed(
                f"{cause} has another code: the means of {_DRAWS} draws differ by "
                f"{difference:.3g} standard errors"
            )
    return f"the means of {_DRAWS} draws agree within {_SIGMAS:.0f} standard errors"


def _seeds() -> list[range]:
    return [range(start, start + _DRAWS) for start in (0, 1000, 2000)]


@check(
    "no memory",
    "the same result again after another batch",
    "accuracy would depend on the order of the test images",
)
def no_memory(tested: PluginUnderTest) -> str:
    """Repeat a batch in evaluation mode, immediately and after another batch."""
    network, images = tested.network(), tested.images(4)
    first = tested.output(network, images)
    repeated = tested.output(network, images)
    tested.output(network, tested.images(3, first=5), seed=1)
    later = tested.output(network, images)
    for when, again in (("when repeated", repeated), ("after another batch", later)):
        if not torch.equal(first, again):
            raise Failed(f"{when}, the result differs by {100 * distance(first, again):.2g} %")
    return "the same result"


@check(
    "input kept",
    "input tensors are not modified",
    "a shortcut or the next epoch, which read the same tensors, would see changed values",
)
def input_kept(tested: PluginUnderTest) -> str:
    """Compare the input before and after a run: images, or the currents of a backbone."""
    network, images = tested.network(), tested.images(4)
    for mode in (False, True):
        network.train(mode)
        with torch.no_grad():
            inputs = tested.inputs(network, images).clone()
            before = inputs.clone()
            tested.run(network, inputs, generator_of())
        if not torch.equal(inputs, before):
            changed = int((inputs != before).sum())
            raise Failed(f"{changed} of {inputs.numel()} input values were modified")
    return "not modified"


@check(
    "no future",
    "the result of step t does not depend on later steps",
    "the accuracy after t < T steps would use steps that have not happened yet",
    kinds=("backbone",),
    needs=("runs", "no memory"),
)
def no_future(tested: PluginUnderTest) -> str:
    """Change all currents from a step on, and compare the logits of the steps before it."""
    network = tested.network()
    with torch.no_grad():
        cur = tested.inputs(network, tested.images(3))
        logits = tested.run(network, cur.clone(), generator_of())
        for t in range(1, len(cur)):
            changed = torch.cat([cur[:t], torch.randn(cur[t:].shape, generator=generator_of(t))])
            moved = distance(tested.run(network, changed, generator_of())[:t], logits[:t])
            if moved > _ROUNDING:
                raise Failed(f"currents from step {t + 1} on change the logits of earlier steps")
    return f"steps 1 to {len(cur) - 1} do not depend on later steps"
