"""What cells are perturbed with, and how strongly: each condition a name and a strength."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import split_list

ATTACKS: Final[dict[str, str]] = {
    "clean": "no perturbation",
    "gaussian": "normal noise of standard deviation sigma on the image, clipped to [0, 1]",
    "signs": "+eps or -eps on every pixel by chance, clipped: what eps costs without a gradient",
    "drop": "each non-zero value of the code deleted with probability p",
    "jitter": "each non-zero value of the code moved by one step in time with probability p",
    "fgsm": "one step of eps along the sign of the gradient",
    "pgd": "steps along the sign of the gradient within eps, from a random start",
    "transfer": "pgd's images of the cell of direct coding that is alike in all else",
}
"""Names of conditions -> what they do, in the order in which they are measured."""

WHITE_BOX: Final = ("fgsm", "pgd")
"""Those that need the gradient of the very network; ``signs`` is their control."""

SIGMAS: Final = (0.05, 0.1, 0.2)
"""Of an image in [0, 1]."""

PROBABILITIES: Final = (0.1, 0.3, 0.5)
"""With which values of the code are deleted or moved."""

JITTER_STEPS: Final = 1
"""How far in time a value moves at most."""

GREY_LEVELS: Final = 255


@dataclass(frozen=True)
class Condition:
    """One perturbation; ``strength`` is sigma, p, or the largest change of a pixel in [0, 1]."""

    attack: str
    strength: float


@dataclass(frozen=True)
class Plan:
    """What is measured of every cell, and how.

    Args:
        attacks: of :data:`ATTACKS`. ``clean`` is always measured, ``signs`` with every white-box
            attack.
        eps: largest changes of a pixel, in 1/255.
        samples: test images, the first so many of the cell's: a balanced choice.
        steps: of an iterated attack.
        draws: codes of a random coding that every gradient is the mean over.
        seed: of all that is random in perturbations.

    Raises:
        SpecError: a name or number is none that there can be.
    """

    attacks: tuple[str, ...] = tuple(ATTACKS)
    eps: tuple[float, ...] = (2.0, 4.0, 8.0)
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
        for name in ("samples", "steps"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.draws < 1:
            raise SpecError(f"eot must be at least 1, got {self.draws}")
        if self.seed < 0:
            raise SpecError(f"seed must be at least 0, got {self.seed}")

    def conditions(self) -> list[Condition]:
        """All of them, each attack at its strengths in rising order."""
        asked = {"clean", *self.attacks}
        if asked & set(WHITE_BOX):
            asked.add("signs")
        return [
            Condition(attack, strength)
            for attack in ATTACKS
            if attack in asked
            for strength in self._strengths(attack)
        ]

    def _strengths(self, attack: str) -> Collection[float]:
        if attack == "clean":
            return (0.0,)
        if attack == "gaussian":
            return SIGMAS
        if attack in ("drop", "jitter"):
            return PROBABILITIES
        return [eps / GREY_LEVELS for eps in sorted(set(self.eps))]

    @property
    def step_share(self) -> float:
        """Size of a step of ``pgd`` as a share of eps: 2.5 / steps, so that it can cross the ball
        of eps from any start (Madry et al., arXiv 1706.06083)."""
        return 2.5 / self.steps


def read_eps(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, in 1/255.

    Raises:
        SpecError: it is something else.
    """
    try:
        return tuple(float(entry) for entry in split_list(text))
    except ValueError:
        raise SpecError(f"eps expects numbers in 1/255, as 2,4,8, got {text!r}") from None
