"""The conditions that a cell is measured under: each an attack and a strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import split_list
from codingbench.robustness.attacks import ATTACKS, EPS, GREY_LEVELS, Attack

_AT_LEAST: Final = {"samples": 1, "steps": 1, "draws": 1, "seed": 0}
_OPTIONS: Final = {"draws": "eot"}  # names of options that differ from those of the fields


@dataclass(frozen=True)
class Condition:
    """One perturbation: the name of an attack, and its strength in the attack's unit."""

    attack: str
    strength: float


@dataclass(frozen=True)
class Plan:
    """The conditions to measure every cell under, and the settings of the attacks.

    Args:
        attacks: names from :data:`~codingbench.robustness.attacks.ATTACKS`. ``clean`` is always
            measured, and with every white-box attack its baseline.
        eps: largest changes of a pixel, in 1/255, above 0 and at most 255.
        samples: number of test images; the first ones of the cell, which are balanced over the
            classes.
        steps: iterations of ``pgd``.
        draws: number of codes over which the gradient of a random coding is averaged.
        seed: seed of everything random in the perturbations.

    Raises:
        SpecError: an attack is unknown or a number out of range.
    """

    attacks: tuple[str, ...] = tuple(ATTACKS)
    eps: tuple[float, ...] = EPS
    samples: int = 500
    steps: int = 10
    draws: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.attacks:
            if name not in ATTACKS:
                raise SpecError(unknown("attack", name, ATTACKS))
        for eps in self.eps:
            if not 0 < eps <= GREY_LEVELS:
                raise SpecError(f"eps must be above 0 and at most {GREY_LEVELS}, got {eps:g}")
        for name, least in _AT_LEAST.items():
            if (value := getattr(self, name)) < least:
                option = _OPTIONS.get(name, name)
                raise SpecError(f"{option} must be at least {least}, got {value}")

    def conditions(self) -> list[Condition]:
        """Return all conditions in the order of measurement, strengths in ascending order."""
        chosen = {"clean", *self.attacks}
        chosen |= {ATTACKS[name].baseline or name for name in self.attacks}
        return [
            Condition(attack.name, strength)
            for attack in ATTACKS.values()
            if attack.name in chosen
            for strength in self._strengths(attack)
        ]

    def _strengths(self, attack: Attack) -> Sequence[float]:
        if attack.unit == "eps":
            return [eps / GREY_LEVELS for eps in sorted(set(self.eps))]
        return attack.strengths


def read_eps(text: str) -> tuple[float, ...]:
    """Return the numbers of a comma-separated list, in 1/255.

    Raises:
        SpecError: an entry is not a number.
    """
    try:
        return tuple(float(entry) for entry in split_list(text))
    except ValueError:
        raise SpecError(f"eps must be numbers in 1/255, for example 2,4,8, got {text!r}") from None
