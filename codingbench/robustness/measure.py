"""Measure finished cells under every condition of a plan: the rows of the table ``robustness``."""

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
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.plugins.loading import NOTHING_SAID, OwnCode
from codingbench.robustness.attacks import ATTACKS
from codingbench.robustness.code import perturbed
from codingbench.robustness.conditions import Condition, Plan
from codingbench.robustness.masking import weaker_than
from codingbench.robustness.target import Target
from codingbench.runtime.devices import resolve_device
from codingbench.runtime.provenance import provenance
from codingbench.schema import COORDINATES
from codingbench.store.folder import Store

Row = dict[str, Any]
Right = Bool[Tensor, "image"]

REFERENCE: Final = "direct"
"""The coding on whose cell the images of transferred attacks are made."""

_EQUAL: Final = [name for name in COORDINATES if name not in ("key", "encoder", "micro_batch")]
_SOFTWARE: Final = ("codingbench_version", "torch_version", "snntorch_version")
_MANNER: Final = ("gradient", "draws", "steps", "step_size")


class Measurement:
    """Measures cells of one store by one plan, and writes the rows into the same store.

    Args:
        store: results folder with the cells and their weights.
        plan: what is measured.
        device: device to measure on; None for the device that each cell was trained on.
        data_dir: folder of the data sets; None for the default.
        measured: called after each condition with the accuracy, in [0, 1].
        own: what the user says about plug-ins that do not ship with codingbench.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        device: str | None = None,
        data_dir: Path | None = None,
        measured: Callable[[Condition, float], None] = lambda condition, accuracy: None,
        own: OwnCode = NOTHING_SAID,
    ) -> None:
        self.own = own
        self.store, self.plan, self.device, self.data_dir = store, plan, device, data_dir
        self.measured = measured
        self._references: dict[str, Target] = {}

    def measure(self, key: str) -> None:
        """Measure a cell with the number of threads and the algorithms of its run.

        Rows of an earlier measurement are kept if they have the same images, seed and device and
        their conditions are not measured again. All others are replaced.

        Raises:
            SpecError: there is no such finished cell, its plug-ins, recipe or data have changed, or
                torch does not find the device.
            CodingbenchError: the cell's weights were not kept, or its code does not pass through
                the base class of encoders.
            DatasetError: the data set cannot be found or downloaded.
            StoreError: the store cannot be written, or another process is running the cell.
        """
        target = self._target(key)
        reference = self._reference(target)
        with target.loaded.conditions():
            right = {}
            for condition in self.plan.conditions():
                if is_possible(condition, target, reference):
                    right[condition] = right_under(condition, target, reference)
                    self.measured(condition, _share(right[condition]))
            rows = _rows(target, reference, right)
        with self.store.claim(key) as is_mine:
            if not is_mine:
                raise StoreError(
                    f"cell {key} is being run by another process in {str(self.store.folder)!r}"
                )
            self.store.add(key, "robustness", [*_kept_rows(self.store, key, rows), *rows])

    def _target(self, key: str) -> Target:
        if key in self._references:
            return self._references[key]
        loaded = restore(self.store, key, self.data_dir, self.own)
        for line in loaded.changed:  # the rows are those of the cell, so its own code is measured
            raise SpecError(line)
        device = resolve_device(self.device or loaded.row["device"])
        target = Target(loaded, self.plan, device, self.data_dir)
        if target.cell.encoder == REFERENCE:
            self._references[key] = target  # other cells need its adversarial images
        return target

    def _reference(self, target: Target) -> Target | None:
        """Return the newest cell with the reference coding that is otherwise identical, if any."""
        is_needed = any(ATTACKS[c.attack].is_transferred for c in self.plan.conditions())
        if not is_needed or target.cell.encoder == REFERENCE:
            return None
        cells = self._cells[self._cells["encoder"] == REFERENCE]
        for name in _EQUAL:
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
    """Return whether the cell can be measured under the condition."""
    attack = ATTACKS[condition.attack]
    if attack.is_transferred and reference is None:
        return False
    return attack.is_possible(target)


def right_under(condition: Condition, target: Target, reference: Target | None) -> Right:
    """Return which test images are classified correctly under the condition."""
    attack, strength = ATTACKS[condition.attack], condition.strength
    if attack.code is not None:
        perturb, draws = attack.code, target.stream(attack.name)
        with perturbed(target.network.encoder, lambda code: perturb(code, strength, draws)):
            return target.right(target.images)
    if attack.images is None:
        return target.right(target.images)
    attacked = reference if attack.is_transferred and reference else target
    return target.right(attack.images(attacked, strength).to(target.device))


def _rows(target: Target, reference: Target | None, right: Mapping[Condition, Right]) -> list[Row]:
    """Return one row per condition."""
    origin = provenance(target.device)
    common = {
        **coordinates(target.loaded.job, target.key),
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
            **_manner(condition, target, reference),
        }
        for condition, which in right.items()
    ]


def _manner(condition: Condition, target: Target, reference: Target | None) -> Row:
    """Return the columns that say how the perturbed images or codes were made."""
    attack = ATTACKS[condition.attack]
    attacked = reference if attack.is_transferred and reference else target
    manner: Row = dict.fromkeys(_MANNER)
    manner |= attack.settings(condition.strength, target.plan.steps)
    if attack.needs_gradient:
        through = attacked.gradient.is_straight_through
        manner["gradient"] = "straight-through" if through else "own"
        manner["draws"] = attacked.gradient.draws
    return manner | {"source": attacked.key if attack.is_transferred else None}


def _kept_rows(store: Store, key: str, rows: list[Row]) -> list[Row]:
    """Return earlier rows of other conditions that are comparable with the new ones."""
    comparable = ("images", "perturbation_seed", "device")
    measured_again = {(row["attack"], row["strength"]) for row in rows}
    return [
        row
        for row in store.read_table("robustness", [key]).to_pylist()
        if all(row[name] == rows[0][name] for name in comparable)
        and (row["attack"], row["strength"]) not in measured_again
    ]


def _share(right: Right) -> float:
    return float(right.double().mean())
