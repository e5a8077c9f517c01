"""Whether a white-box attack is one: it must do more than chance, and no less than a stranger's.

An attack that knows the network and yet does no more harm than random signs of the same size, or
less than images made on another network, has been led astray by its gradient; so has one of many
steps that does less than a single one. The accuracy that it leaves says nothing of how robust the
coding is (Athalye, Carlini & Wagner, arXiv 1802.00420, section 3.1).
"""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from codingbench.analysis.statistics import ALPHA, mcnemar
from codingbench.robustness.conditions import WHITE_BOX, Condition

Right = Bool[Tensor, "image"]


def weaker_than(condition: Condition, right: Mapping[Condition, Right]) -> list[str]:
    """The controls by which the gradient of a white-box attack is masked; none of other conditions.

    ``signs`` unless the attack is shown to be stronger, ``transfer`` and for ``pgd`` also ``fgsm``
    if they are shown to be: by McNemar's test on the images that stay right under one of the two
    alone, at 5 %.

    Args:
        right: of all conditions measured, which images are classified right.
    """
    if condition.attack not in WHITE_BOX:
        return []
    ours, found = right[condition], []
    signs = right.get(Condition("signs", condition.strength))
    if signs is not None and not _is_stronger(ours, signs):
        found.append("signs")
    for name in ("fgsm", "transfer"):
        other = Condition(name, condition.strength)
        if other != condition and other in right and _is_stronger(right[other], ours):
            found.append(name)
    return found


def _is_stronger(attack: Right, other: Right) -> bool:
    """Whether the attack leaves fewer images right, by more than chance."""
    only_attack, only_other = int((attack & ~other).sum()), int((other & ~attack).sum())
    return only_attack < only_other and mcnemar(only_attack, only_other) <= ALPHA
