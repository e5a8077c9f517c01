"""Finished cells under every condition of a plan: the rows of table ``robustness``."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from codingbench.cells.rows import coordinates
from codingbench.cells.weights import restore
from codingbench.errors import CodingbenchError, StoreError
from codingbench.robustness.code import drop, jitter, perturbed
from codingbench.robustness.conditions import JITTER_STEPS, Condition, Plan
from codingbench.robustness.masking import weaker_than
from codingbench.robustness.target import Target
from codingbench.runtime.devices import resolve_device
from codingbench.runtime.provenance import provenance
from codingbench.schema import COORDINATES
from codingbench.store.folder import Store

Row = dict[str, Any]
Right = Bool[Tensor, "image"]

REFERENCE: Final = "direct"
"""The coding whose adversarial images are tried on the others."""

_ALIKE: Final = [name for name in COORDINATES if name not in ("key", "encoder", "micro_batch")]
_SOFTWARE: Final = ("codingbench_version", "torch_version", "snntorch_version")


class Measurement:
    """Measures cells of one store by one plan, and writes what comes out beside them.

    Args:
        store: where the cells and their weights are.
        plan: what is measured.
        device: where; None: where each cell was run.
        data_dir: where data sets are.
        listen: hears each condition that is done, with the accuracy.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        device: str | None = None,
        data_dir: Path | None = None,
        listen: Callable[[Condition, float], None] = lambda condition, accuracy: None,
    ) -> None:
        self.store, self.plan, self.device, self.data_dir = store, plan, device, data_dir
        self.listen = listen
        self._references: dict[str, Target] = {}

    def measure(self, key: str) -> None:
        """Measure a cell, with the threads and algorithms of its run.

        Rows of an earlier measurement stay if they are of the same images, seed and device and
        of conditions that are not measured now; else they go.

        Raises:
            SpecError: no such cell is finished, or its plug-ins, recipe or data are not what they
                were; or torch does not see the device.
            CodingbenchError: its weights were not kept; or its code does not pass through the base
                class of encoders.
            DatasetError: its data set is not to be had.
            StoreError: the store cannot be written, or another process is running the cell.
        """
        target = self._target(key)
        reference = self._reference(target)
        with target.kept.conditions():
            right = {}
            for condition in self.plan.conditions():
                if is_possible(condition, target, reference):
                    right[condition] = right_under(condition, target, reference)
                    self.listen(condition, _share(right[condition]))
            rows = _rows(target, reference, right)
        with self.store.claim(key) as is_mine:
            if not is_mine:
                raise StoreError(f"cell {key} is being run in {str(self.store.folder)!r}")
            self.store.add(key, "robustness", [*_staying(self.store, key, rows), *rows])

    def _target(self, key: str) -> Target:
        if key in self._references:
            return self._references[key]
        kept = restore(self.store, key, self.data_dir)
        device = resolve_device(self.device or kept.row["device"])
        target = Target(kept, self.plan, device, self.data_dir)
        if target.cell.encoder == REFERENCE:
            self._references[key] = target  # with its images, which others need
        return target

    def _reference(self, target: Target) -> Target | None:
        """The newest cell of direct coding that is alike in all else and can be measured."""
        asks = any(condition.attack == "transfer" for condition in self.plan.conditions())
        if not asks or target.cell.encoder == REFERENCE:
            return None
        cells = self._cells[self._cells["encoder"] == REFERENCE]
        for name in _ALIKE:
            cells = cells[cells[name] == getattr(target.cell, name)]
        for key in cells.sort_values("finished_at", ascending=False)["key"]:
            try:
                return self._target(key)
            except CodingbenchError:
                continue  # its weights were not kept, or its code has changed
        return None

    @cached_property
    def _cells(self) -> pd.DataFrame:
        return self.store.read("cells")


def is_possible(condition: Condition, target: Target, reference: Target | None) -> bool:
    """Whether there is what the condition needs: another network's images, steps to move to, or
    values at steps of their own, which currents are not."""
    if condition.attack == "transfer":
        return reference is not None
    if condition.attack == "jitter":
        return target.cell.num_steps > 1 and target.network.encoder.emits != "real"
    return True


def right_under(condition: Condition, target: Target, reference: Target | None) -> Right:
    """Which test images are classified right under the condition."""
    attack, strength, images = condition.attack, condition.strength, target.images
    if attack == "clean":
        return target.right(images)
    if attack == "gaussian":
        noise = strength * target.drawn(torch.randn, attack)
        return target.right((images + noise).clamp(0, 1))
    if attack == "signs":
        signs = (target.drawn(torch.rand, attack) - 0.5).sign()
        return target.right((images + strength * signs).clamp(0, 1))
    if attack in ("fgsm", "pgd"):
        return target.right(target.adversarial(attack, strength))
    if attack == "transfer":
        assert reference is not None
        return target.right(reference.adversarial("pgd", strength).to(target.device))
    draws = target.stream(attack)
    with perturbed(target.network.encoder, lambda code: _changed(attack, code, strength, draws)):
        return target.right(images)


def _changed(attack: str, code: Tensor, p: float, draws: torch.Generator) -> Tensor:
    return drop(code, p, draws) if attack == "drop" else jitter(code, p, JITTER_STEPS, draws)


def _rows(target: Target, reference: Target | None, right: Mapping[Condition, Right]) -> list[Row]:
    """One row per condition."""
    origin = provenance(target.device)
    common = {
        **coordinates(target.kept.job, target.key),
        "images": len(target.labels),
        "perturbation_seed": target.plan.seed,
        "measured_at": datetime.now(UTC),
        "threads": torch.get_num_threads() if target.device.type == "cpu" else None,
        **{name: origin[name] for name in (*_SOFTWARE, "device", "device_name")},
    }
    return [
        {
            **common,
            "attack": condition.attack,
            "strength": condition.strength,
            "accuracy": _share(which),
            "weaker_than": ",".join(weaker_than(condition, right)) or None,
            "source": reference.key if reference and condition.attack == "transfer" else None,
            **_manner(condition, target, reference),
        }
        for condition, which in right.items()
    ]


def _manner(condition: Condition, target: Target, reference: Target | None) -> Row:
    """How images or codes were made."""
    attack, plan = condition.attack, target.plan
    manner: Row = dict.fromkeys(("gradient", "draws", "steps", "step_size"))
    attacker = reference if attack == "transfer" else target
    if attack in ("fgsm", "pgd", "transfer") and attacker:
        is_own = not attacker.gradient.is_straight_through
        manner["gradient"] = "own" if is_own else "straight-through"
        manner["draws"] = attacker.gradient.draws
        manner["step_size"] = condition.strength
    if attack in ("pgd", "transfer"):
        manner |= {"steps": plan.steps, "step_size": condition.strength * plan.step_share}
    if attack == "jitter":
        manner["steps"] = JITTER_STEPS
    return manner


def _staying(store: Store, key: str, rows: list[Row]) -> list[Row]:
    """Earlier rows of other conditions that can stand beside the new ones."""
    together = ("images", "perturbation_seed", "device")
    anew = {(row["attack"], row["strength"]) for row in rows}
    return [
        row
        for row in store.read_table("robustness", [key]).to_pylist()
        if all(row[name] == rows[0][name] for name in together)
        and (row["attack"], row["strength"]) not in anew
    ]


def _share(right: Right) -> float:
    return float(right.double().mean())
