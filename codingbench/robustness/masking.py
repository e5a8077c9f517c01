"""Detect masked gradients: white-box attacks that fail because their gradient misleads them.

An attack that knows the network must be stronger than random signs of the same size. It must not be
weaker than images made on another network, and an attack of many steps not weaker than a single
step. Otherwise the accuracy that it leaves is no evidence that the coding is robust.

Source: Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018,
arXiv 1802.00420, section 3.1.
"""

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from codingbench.analysis.statistics import ALPHA, mcnemar
from codingbench.robustness.attacks import ATTACKS
from codingbench.robustness.conditions import Condition

Right = Bool[Tensor, "image"]


def weaker_than(condition: Condition, right: Mapping[Condition, Right]) -> list[str]:
    """Return the control attacks that show the gradient of a white-box attack to be masked.

    The list has the baseline unless the attack is significantly stronger than it, and each rival
    that is significantly stronger than the attack. The test is McNemar's at the 5 % level, on the
    images that are classified correctly under only one of the two attacks.

    Args:
        condition: the condition to test; the list is empty unless it is a white-box attack.
        right: for every measured condition, which images are classified correctly.
    """
    attack, found = ATTACKS[condition.attack], []
    if attack.baseline is not None:
        baseline = right.get(Condition(attack.baseline, condition.strength))
        if baseline is not None and not _is_stronger(right[condition], baseline):
            found.append(attack.baseline)
    for name in attack.rivals:
        rival = right.get(Condition(name, condition.strength))
        if rival is not None and _is_stronger(rival, right[condition]):
            found.append(name)
    return found


def _is_stronger(attack: Right, other: Right) -> bool:
    """Return whether the attack leaves significantly fewer images correct than the other."""
    only_attack, only_other = int((attack & ~other).sum()), int((other & ~attack).sum())
    return only_attack < only_other and mcnemar(only_attack, only_other) <= ALPHA
