"""Totals of a layer at a step, and their row in table ``layers``."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from codingbench.schema import COUNTS, VALUE_CLASSES

Row = dict[str, Any]
Counts = dict[str, float]
"""Name of a count in ``codingbench.schema.COUNTS`` -> its value, an integer except for rates."""


@dataclass
class Tally:
    """Totals over images, of one layer at one step."""

    executions: int = 0
    values: int = 0
    nonzero: int = 0
    magnitude: float = 0.0
    spikes: int = 0
    counts: Counts = field(default_factory=dict)

    def add(self, part: "Tally") -> None:
        """Add the totals of another tally."""
        self.executions += part.executions
        self.values += part.values
        self.nonzero += part.nonzero
        self.magnitude += part.magnitude
        self.spikes += part.spikes
        for name, count in part.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count


Tallies = Callable[[], list[Tally]]


@dataclass
class Layer:
    """One kind of work of one module, per step; ``kind`` is one of the schema's KINDS."""

    name: str
    kind: str
    position: int  # order of first execution
    neurons: int = 0  # per image
    steps: dict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def rows(self, images: int, is_first: bool) -> list[Row]:
        """Return one row per step; ``is_first`` marks the first synaptic layer of the network."""
        return [self._row(step, self.steps[step], images, is_first) for step in sorted(self.steps)]

    def _row(self, step: int, tally: Tally, images: int, is_first: bool) -> Row:
        counts = {name: tally.counts.get(name, 0) for name in COUNTS}
        if is_first and step == 1:
            counts["paper_first_macs"] = counts["dense_real"]
        seen = [c for c in VALUE_CLASSES if counts[f"dense_{c}"]]
        chances = self.neurons * images
        return {
            "layer": self.name,
            "position": self.position,
            "kind": self.kind,
            "step": step,
            "images": images,
            "executions": tally.executions,
            "input_class": (seen or ["binary"])[-1] if self.kind == "synapse" else None,
            "input_values": tally.values,
            "input_nonzero": tally.nonzero,
            "input_rate": tally.magnitude / tally.values if tally.values else 0.0,
            **counts,
            "spikes": tally.spikes,
            "neurons": self.neurons,
            "firing_rate": tally.spikes / chances if chances else 0.0,
        }


@dataclass
class Record:
    """One execution of a layer in the current batch: a tally per step, or one for the call.

    ``tallies`` makes them from the numbers of the batch, which are known after it.
    """

    layer: Layer
    tallies: Tallies
    is_split: bool
    is_guess: bool  # split because of its size alone: it is not, if it repeats at every step
    operation: Any  # identifies the operation: a layer called at every step repeats it
    caller: tuple[str, ...] = ()  # the modules that were running
    step: int | None = None  # the step of its operands, from 1 on; None if unknown
