"""Checks that nothing reaches a result but its image: no neighbour, no other batch, no future."""

from collections.abc import Iterator

import torch
from torch import Tensor

from codingbench.backbone import Network
from codingbench.conformance.check import Failed, check
from codingbench.conformance.images import Images
from codingbench.conformance.subject import Subject, draws
from codingbench.encoder import Encoder

_ROUNDING = 1e-4  # relative; batches of one size are computed alike
_FEW_SPIKES = 1e-2  # in a batch of another size rounding differs, and moves a spike now and then
_DRAWS = 48
_SIGMAS = 6.0  # a coding without the fault exceeds it about once in 10^7 comparisons


def distance(a: Tensor, b: Tensor) -> float:
    """Sum of |a - b| relative to the larger sum of absolute values."""
    scale = torch.maximum(a.abs().sum(), b.abs().sum())
    return float((a - b).abs().sum() / scale) if scale > 0 else 0.0


@check(
    "own image",
    "no effect of other images or of the place",
    "accuracy would depend on the batch size, and on which images are tested together",
    needs=("runs", "no memory", "generator"),
)
def own_image(subject: Subject) -> str:
    """An image gives the same alone, before bright neighbours and behind dim ones."""
    network = subject.network()
    module = subject.module(network)
    if isinstance(module, Encoder) and not module.is_deterministic:
        return _same_in_distribution(subject, network)
    alone, before, behind = (subject.output(network, x)[:, at] for x, at in _company(subject))
    moved, parted = distance(before, behind), distance(before, alone)
    if moved > _ROUNDING:
        raise Failed(f"other neighbours change {100 * moved:.2g} % of it")
    if parted > _FEW_SPIKES:
        raise Failed(f"alone it differs by {100 * parted:.2g} %")
    return "the same, alone and among others"


def _company(subject: Subject) -> Iterator[tuple[Images, int]]:
    """One image, not the brightest, in three batches, and its place in each."""
    image = 0.6 * subject.images(1)
    neighbours = subject.images(3, first=3)
    yield image, 0
    yield torch.cat([image, neighbours]), 0
    yield torch.cat([0.2 * neighbours.flip(0), image]), 3


def _same_in_distribution(subject: Subject, network: Network) -> str:
    """Random codes: the mean of every step, over 48 draws each, may differ by chance alone."""
    means = [
        torch.stack([subject.output(network, x, seed)[:, at].flatten(1).mean(1) for seed in seeds])
        for (x, at), seeds in zip(_company(subject), _seeds(), strict=True)
    ]
    for first, second in ((0, 1), (1, 2)):
        a, b = means[first], means[second]
        spread = ((a.var(0) + b.var(0)) / _DRAWS).sqrt().clamp_min(1e-6)
        apart = float(((a.mean(0) - b.mean(0)).abs() / spread).max())
        if apart > _SIGMAS:
            other = ("alone it is another", "other neighbours change it")[first]
            raise Failed(f"{other}: means of {_DRAWS} draws {apart:.3g} standard errors apart")
    return f"means of {_DRAWS} draws within {_SIGMAS:.0f} standard errors"


def _seeds() -> list[range]:
    return [range(start, start + _DRAWS) for start in (0, 1000, 2000)]


@check(
    "no memory",
    "the same again, with another batch between",
    "accuracy would depend on the order of the test images",
)
def no_memory(subject: Subject) -> str:
    """Nothing is left behind by a batch in evaluation mode."""
    network, images = subject.network(), subject.images(4)
    first = subject.output(network, images)
    at_once = subject.output(network, images)
    subject.output(network, subject.images(3, first=5), seed=1)
    later = subject.output(network, images)
    for name, again in (("at once", at_once), ("after another batch", later)):
        if not torch.equal(first, again):
            raise Failed(f"{name} {100 * distance(first, again):.2g} % of it is different")
    return "the same"


@check(
    "input kept",
    "tensors given are not written to",
    "what else reads them, as the shortcut of a block or the next epoch, would see other values",
)
def input_kept(subject: Subject) -> str:
    """Images, and the currents that a backbone is given, are left as they were."""
    network, images = subject.network(), subject.images(4)
    for mode in (False, True):
        network.train(mode)
        with torch.no_grad():
            given = subject.given(network, images).clone()
            before = given.clone()
            subject.run(network, given, draws())
        if not torch.equal(given, before):
            raise Failed(f"{int((given != before).sum())} of {given.numel()} values were changed")
    return "untouched"


@check(
    "no future",
    "step t does not depend on later ones",
    "the accuracy after t < T steps would use steps that have not been yet",
    kinds=("backbone",),
    needs=("runs", "no memory"),
)
def no_future(subject: Subject) -> str:
    """Changing all currents from a step on leaves the logits before it as they were."""
    network = subject.network()
    with torch.no_grad():
        cur = subject.given(network, subject.images(3))
        logits = subject.run(network, cur.clone(), draws())
        for t in range(1, len(cur)):
            changed = torch.cat([cur[:t], torch.randn(cur[t:].shape, generator=draws(t))])
            moved = distance(subject.run(network, changed, draws())[:t], logits[:t])
            if moved > _ROUNDING:
                raise Failed(f"currents from step {t + 1} on change the logits before it")
    return f"steps 1 to {len(cur) - 1} do not"
