"""The losses that a training can minimise, chosen by the recipe's section ``loss``."""

from jaxtyping import Float
from torch import Tensor

from codingbench.recipes.recipe import Loss, Recipe
from codingbench.training.augment import Batch

_MEAN = Loss(name="mean")


def training_loss(
    logits: Float[Tensor, "time batch class"], batch: Batch, recipe: Recipe
) -> Tensor:
    """Return the loss of a batch: its mean over the images, and 0 for an empty batch.

    ``mean`` is the cross-entropy of the mean logits; ``tet`` is :func:`tet_loss`. Without a section
    ``loss`` it is ``mean``.
    """
    settings = recipe.loss or _MEAN
    if settings.name == "tet":
        return tet_loss(logits, batch, recipe.label_smoothing, settings)
    return batch.loss(logits.mean(0), recipe.label_smoothing)


def tet_loss(
    logits: Float[Tensor, "time batch class"], batch: Batch, label_smoothing: float, settings: Loss
) -> Tensor:
    """Return the loss of temporal efficient training, in which each step has a loss of its own:

        (1 - w) mean_t CE(logits[t], labels) + w mean_t MSE(logits[t], target)

    w is ``settings.mse_weight`` and target is ``settings.mse_target``. Mixed labels and label
    smoothing apply to the cross-entropy CE of each step. The second term keeps the logits of all
    steps near one number. Source: Deng et al., ICLR 2022 (arXiv 2202.11946), as the official code
    computes it (``TET_loss``).
    """
    cross_entropy = batch.loss(logits, label_smoothing)
    weight = settings.mse_weight
    if not weight or not len(batch.labels):
        return cross_entropy
    return (1 - weight) * cross_entropy + weight * (logits - settings.mse_target).square().mean()
