"""Follow a network through its modules, and assign each operation to a layer and a time step.

Operations are recorded in order of execution. At the end of a batch each gets its step:

- An input with folded time ([T * B, ...] or [T, B, ...]) has been split by step.
- Operations that a layer runs T times on [B, ...] are split by call.
- All other operations run once for all steps and are counted at step 1.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from codingbench.counting.ledger import Ledger
from codingbench.counting.spiking import Given, Neurons
from codingbench.counting.tally import Layer, Record, Tallies
from codingbench.neurons import is_known_binary


@dataclass(frozen=True)
class Scope:
    """A running module; ``given`` is its first input if it contains no other modules."""

    name: str
    given: Tensor | None
    is_neuron: bool
    is_pure: bool  # changes no tensors except those it creates
    examined: Given | None = None  # the input of a module that may be a neuron


@dataclass(frozen=True)
class CountedBatch:
    """The executions of one batch, whose numbers may be set and counted again and again."""

    images: int
    records: list[Record]
    ledger: Ledger

    def is_like(self, other: "CountedBatch") -> bool:
        """Return whether both ran the same operations in the same layers, in the same order."""

        def kinds(batch: CountedBatch) -> list[tuple[int, bool, Any]]:
            return [(r.layer.position, r.is_split, r.operation) for r in batch.records]

        return self.images == other.images and kinds(self) == kinds(other)


class Follower:
    """Base class of the counter: tracks the running module, the batch and all layers so far."""

    def __init__(self, network: nn.Module, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.images = 0
        self._network = network
        self._neurons = Neurons(network)
        self._batch = 0
        self._scopes: list[Scope] = []  # the running modules, innermost last
        self._operation: Any = None  # the current one, and the shape of its result
        self._layers: dict[tuple[str, str], Layer] = {}
        self._records: list[Record] = []
        self._ledger = Ledger()
        self._answers: Sequence[bool] | None = None  # for the next batches
        self.batch: CountedBatch | None = None
        """The last batch."""
        self._time_axes: dict[tuple[str, Any], bool] = {}
        self._failed_batches = 0  # batches for which the network failed or returned None
        self._handles: list[Any] = []

    def _add_hooks(self) -> None:
        for name, module in self._network.named_modules():
            self._handles += [
                module.register_forward_pre_hook(self._entering(name), with_kwargs=True),
                module.register_forward_hook(self._leaving(name), always_call=True),
            ]

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _leaf_started(self, name: str, module: nn.Module) -> None:
        """Handle the start of a module that contains no other modules."""

    def _emitted(
        self, name: str, module: nn.Module, spk: Tensor, examined: Given | None = None
    ) -> None:
        """Handle the output of a neuron or of the encoder.

        ``examined`` is the input of a module that may be a neuron, None for those that are known.
        """

    def _batch_done(self) -> None:
        """Handle the end of a batch."""

    def _entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._scopes:
                self._batch = args[0].shape[0]
                self._records, self._ledger = [], Ledger(self._answers)
            is_leaf = name != "" and next(module.children(), None) is None
            given = args[0] if is_leaf and args and isinstance(args[0], Tensor) else None
            is_neuron = isinstance(module, SpikingNeuron)
            self._scopes.append(
                Scope(
                    name,
                    given,
                    is_neuron,
                    is_known_binary(module),
                    self._examined(name, (*args, *kwargs.values())),
                )
            )
            if is_leaf:
                self._leaf_started(name, module)

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            examined = self._scopes.pop().examined
            if output is not None:
                with _disable_current_modes():
                    self._note_spikes(name, module, examined, output)
            if not self._scopes and output is None:
                self._failed_batches += self._answers is None
                self._batch_done()
            elif not self._scopes:
                self._close_batch()

        return hook

    def _examined(self, name: str, args: tuple[Any, ...]) -> Given | None:
        if not self._neurons.is_candidate(name):
            return None
        with _disable_current_modes():
            return self._neurons.given(args, self._ledger)

    def _note_spikes(
        self, name: str, module: nn.Module, examined: Given | None, output: Any
    ) -> None:
        """Handle the output of a module: spikes, a code, what may be spikes, or anything else."""
        if self._neurons.is_candidate(name):
            spk = self._neurons.examined(name, examined, output, self._ledger)
        else:
            spk = self._neurons.emitted(name, output)
        if spk is not None:
            self._emitted(name, module, spk, examined)

    @contextmanager
    def following(self, answers: Sequence[bool]) -> Iterator[None]:
        """Let batches inside the context take the decisions of an earlier one, without waiting.

        They are not counted. :attr:`batch` is the last of them, and its ledger's content has its
        numbers, which :meth:`count` takes.
        """
        self._answers = answers
        try:
            yield
        finally:
            self._answers = None

    def count(self, batch: CountedBatch, content: Sequence[float]) -> bool:
        """Count a batch, given the content of its ledger; return False if a decision was wrong.

        Nothing is counted then.
        """
        if not batch.ledger.set(content):
            return False
        calls: dict[int, list[Record]] = defaultdict(list)
        for record in batch.records:
            calls[record.layer.position].append(record)
        for records in calls.values():
            per_step = self._calls_per_step(records)
            for call, record in enumerate(records):
                for index, tally in enumerate(record.tallies()):
                    tally.executions = batch.images
                    step = index if record.is_split else call // per_step
                    record.layer.steps[step + 1].add(tally)
        self.images += batch.images
        return True

    def _close_batch(self) -> None:
        """Count the batch, unless it follows another one."""
        self.batch = CountedBatch(self._batch, self._records, self._ledger)
        if self._answers is None:
            with _disable_current_modes():
                content = self._ledger.content().tolist()
            self._ledger.forget_content()
            self.count(self.batch, content)
        self._records = []
        self._batch_done()

    def _calls_per_step(self, records: list[Record]) -> int:
        """Return how many of a layer's calls belong to a step.

        This is 1/T of them if the calls repeat T times; otherwise all calls, which then count as
        one execution for all steps.
        """
        part = len(records) // self.num_steps
        repeats = len(records) == part * self.num_steps and all(
            record.operation == records[call % part].operation and not record.is_split
            for call, record in enumerate(records)
        )
        return part if repeats else len(records)

    def _by_step(
        self, x: Tensor, given: Tensor | None, is_folded: bool = False
    ) -> tuple[Tensor, bool]:
        """Return ``x`` with the steps as first axis, [T or 1, rows, ...], and whether it was split.

        Args:
            x: an operand.
            given: tensor whose shape shows how the rows were folded: ``x`` itself or the input of
                the module around the operation. None: time is taken to be folded if the number
                of rows is a multiple of T * B.
            is_folded: the operation has no separate time axis, only [rows, channels, ...].
        """
        folded = self.num_steps * self._batch
        if given is None:
            is_split = x.dim() > 0 and len(x) > 0 and len(x) % folded == 0
        else:
            is_split = given.dim() > 0 and len(given) == folded
        if not is_split and not is_folded and self._has_time_axis(x if given is None else given):
            if given is None or given is x:
                return x, True
            is_split = True
        return (x.unflatten(0, (self.num_steps, -1)) if is_split else x.unsqueeze(0)), is_split

    def _has_time_axis(self, x: Tensor) -> bool:
        """Return whether the axes of ``x`` are [T, B, ...].

        In a batch of T images they could also be [B, ...] with T features. Then the answer is that
        for the same operation of the same module in batches of another size, if there were any.
        """
        looks_so = x.shape[:2] == (self.num_steps, self._batch)
        which = (self._scopes[-1].name if self._scopes else "", self._operation[0])
        if self.num_steps == self._batch > 1:
            return looks_so and self._time_axes.get(which, True)
        self._time_axes[which] = looks_so
        return looks_so

    def _record(
        self, kind: str, tallies: Tallies, is_split: bool, name: str | None = None
    ) -> Layer:
        layer = self._layer(self._scopes[-1].name if name is None else name, kind)
        self._records.append(Record(layer, tallies, is_split, self._operation))
        return layer

    def _layer(self, name: str, kind: str) -> Layer:
        if (name, kind) not in self._layers:
            self._layers[name, kind] = Layer(name, kind, position=len(self._layers))
        return self._layers[name, kind]
