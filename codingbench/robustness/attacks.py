"""The attacks: every perturbation that finished cells are measured under, one record each.

To add an attack, write its function and add a record to :data:`ATTACKS`. The measured conditions,
the test for masked gradients, the tables and the command's help all read the record.

This module does not import torch, because ``codingbench robustness --help`` lists the attacks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor

GREY_LEVELS: Final = 255

EPS: Final = (2.0, 4.0, 8.0)
"""Default eps: largest changes of a pixel, in 1/255."""

JITTER_STEPS: Final = 1
"""Largest distance in time steps that ``jitter`` moves a value."""

BatchAttack = Callable[["Tensor", Callable[["Tensor"], "Tensor"], slice], "Tensor"]
"""Makes the adversarial images of a batch: (images, gradient of the loss, the batch's place among
all images) -> images."""


@runtime_checkable
class AttackedCell(Protocol):
    """The parts of a cell that attacks use."""

    @property
    def images(self) -> "Tensor":
        """Test images in [0, 1], [N, C, H, W]."""

    @property
    def num_steps(self) -> int:
        """T."""

    @property
    def emits(self) -> str:
        """Kind of values that the encoder emits."""

    @property
    def iterations(self) -> int:
        """Number of steps of an iterated attack."""

    def normal(self, purpose: str) -> "Tensor":
        """Return a standard normal number for each value of the images."""

    def uniform(self, purpose: str) -> "Tensor":
        """Return a uniform number in [0, 1) for each value of the images."""

    def adversarial(self, purpose: str, eps: float, attack: BatchAttack) -> "Tensor":
        """Return the images that ``attack`` makes, batch by batch; they are made only once."""


@dataclass(frozen=True)
class Attack:
    """One kind of perturbation.

    Args:
        name: name in ``--attacks`` and in the table ``robustness``.
        summary: what it does, for the notes below tables.
        unit: symbol of its strength: ``sigma`` of noise, probability ``p``, or ``eps``, the largest
            change of a pixel; empty if it has no strength. Images are in [0, 1].
        strengths: default strengths. Those of unit ``eps`` can be chosen with ``--eps``.
        images: function that makes the perturbed images from a cell and a strength.
        code: function that perturbs a code [T, B, ...] with a strength and a generator.
        needs_gradient: it uses the gradient of the loss with respect to the images.
        is_transferred: its images are made on the reference cell instead of the measured one.
        baseline: the attack of equal strength without gradient that it must beat.
        rivals: attacks of equal strength that must not be stronger than it.
        as_control: what remarks say of a white-box attack that fails against this control.
        is_possible: whether it can be applied to a cell.
        settings: values of the columns ``steps`` and ``step_size`` for a strength and a number of
            iterations.
    """

    name: str
    summary: str
    unit: Literal["", "sigma", "p", "eps"]
    strengths: tuple[float, ...]
    images: "Callable[[AttackedCell, float], Tensor] | None" = None
    code: "Callable[[Tensor, float, Generator], Tensor] | None" = None
    needs_gradient: bool = False
    is_transferred: bool = False
    baseline: str | None = None
    rivals: tuple[str, ...] = ()
    as_control: str = ""
    is_possible: Callable[[AttackedCell], bool] = lambda cell: True
    settings: Callable[[float, int], dict[str, Any]] = lambda strength, iterations: {}

    @property
    def perturbs(self) -> Literal["nothing", "image", "code"]:
        """The place of the perturbation."""
        if self.code is not None:
            return "code"
        return "nothing" if self.images is None else "image"

    @property
    def is_iterated(self) -> bool:
        """True if it takes several steps along the gradient."""
        return self.needs_gradient and "steps" in self.settings(0.0, 1)

    @property
    def is_white_box(self) -> bool:
        """True if it uses the gradient of the same network that it attacks."""
        return self.needs_gradient and not self.is_transferred


def pgd_step_size(eps: float, iterations: int) -> float:
    """Return 2.5 eps / iterations, with which PGD reaches every point within eps from any start.

    Source: Madry et al., arXiv 1706.06083.
    """
    return eps * (2.5 / iterations)


def _gaussian(cell: AttackedCell, sigma: float) -> "Tensor":
    return (cell.images + sigma * cell.normal("gaussian")).clamp(0, 1)


def _signs(cell: AttackedCell, eps: float) -> "Tensor":
    signs = (cell.uniform("signs") - 0.5).sign()
    return (cell.images + eps * signs).clamp(0, 1)


def _fgsm(cell: AttackedCell, eps: float) -> "Tensor":
    from codingbench.robustness.sign_gradient import fgsm

    return cell.adversarial("fgsm", eps, lambda images, gradient, at: fgsm(images, gradient, eps))


def _pgd(cell: AttackedCell, eps: float) -> "Tensor":
    from codingbench.robustness.sign_gradient import pgd

    start = eps * (2 * cell.uniform("pgd") - 1)
    steps, step_size = cell.iterations, pgd_step_size(eps, cell.iterations)
    return cell.adversarial(
        "pgd",
        eps,
        lambda images, gradient, at: pgd(images, gradient, eps, steps, step_size, start[at]),
    )


def _drop(code: "Tensor", p: float, generator: "Generator") -> "Tensor":
    from codingbench.robustness.code import drop

    return drop(code, p, generator)


def _jitter(code: "Tensor", p: float, generator: "Generator") -> "Tensor":
    from codingbench.robustness.code import jitter

    return jitter(code, p, JITTER_STEPS, generator)


def _can_jitter(cell: AttackedCell) -> bool:
    """Currents (``real``) fill every step, so that none of their values can move."""
    return cell.num_steps > 1 and cell.emits != "real"


def _pgd_settings(eps: float, iterations: int) -> dict[str, Any]:
    return {"steps": iterations, "step_size": pgd_step_size(eps, iterations)}


_EPS: Final = tuple(eps / GREY_LEVELS for eps in EPS)
_SIGMAS: Final = (0.05, 0.1, 0.2)
_PROBABILITIES: Final = (0.1, 0.3, 0.5)

_ALL: Final = (
    Attack("clean", "no perturbation", unit="", strengths=(0.0,)),
    Attack(
        "gaussian",
        "normal noise of standard deviation sigma on the image, clipped to [0, 1]",
        unit="sigma",
        strengths=_SIGMAS,
        images=_gaussian,
    ),
    Attack(
        "signs",
        "random +eps or -eps on every pixel, clipped (the control without a gradient)",
        unit="eps",
        strengths=_EPS,
        images=_signs,
        as_control="not shown to be stronger than random signs of the same size",
    ),
    Attack(
        "drop",
        "each non-zero value of the code is deleted with probability p",
        unit="p",
        strengths=_PROBABILITIES,
        code=_drop,
    ),
    Attack(
        "jitter",
        "each non-zero value of the code moves by one time step with probability p",
        unit="p",
        strengths=_PROBABILITIES,
        code=_jitter,
        is_possible=_can_jitter,
        settings=lambda p, iterations: {"steps": JITTER_STEPS},
    ),
    Attack(
        "fgsm",
        "one step of size eps along the sign of the gradient",
        unit="eps",
        strengths=_EPS,
        images=_fgsm,
        needs_gradient=True,
        baseline="signs",
        rivals=("transfer",),
        as_control="weaker than a single step",
        settings=lambda eps, iterations: {"step_size": eps},
    ),
    Attack(
        "pgd",
        "several steps along the sign of the gradient, within eps, from a random start",
        unit="eps",
        strengths=_EPS,
        images=_pgd,
        needs_gradient=True,
        baseline="signs",
        rivals=("fgsm", "transfer"),
        settings=_pgd_settings,
    ),
    Attack(
        "transfer",
        "the images of pgd made on the cell that uses direct coding and is otherwise identical",
        unit="eps",
        strengths=_EPS,
        images=_pgd,
        needs_gradient=True,
        is_transferred=True,
        as_control="weaker than images made on direct coding",
        settings=_pgd_settings,
    ),
)

ATTACKS: Final[dict[str, Attack]] = {attack.name: attack for attack in _ALL}
"""All attacks by name, in the order in which they are measured."""
