"""Follow a network through its modules, and assign each operation to a layer and a time step.

Operations are recorded in order of execution. At the end of a batch each gets its step:

- An input that holds all steps ([T * B, ...] or [T, B, ...]) has been split by step.
- Operations that a module runs T times for the same caller are split by call.
- Other operations on what was taken out of a single step are counted at this step.
- All others run once for all steps and are counted at step 1.

What an input holds is known from where it comes from (:mod:`codingbench.counting.traces`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from codingbench.counting.ledger import Ledger
from codingbench.counting.spiking import Given, Neurons
from codingbench.counting.tally import Layer, Record, Tallies
from codingbench.counting.traces import ALL, NONE, Traces
from codingbench.encoder import Code
from codingbench.neurons import is_known_binary


@dataclass(frozen=True)
class Scope:
    """A running module."""

    name: str
    sequences: int | None  # of a recurrent module over the steps: how many it runs through
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

        def kinds(batch: CountedBatch) -> list[tuple[Any, ...]]:
            return [(r.layer.position, r.is_split, r.step, r.operation) for r in batch.records]

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
        self._step: int | None = None  # of its operands
        self._is_guess = False  # its operand was split by step because of its size alone
        self._layers: dict[tuple[str, str], Layer] = {}
        self._records: list[Record] = []
        self._traces = Traces(num_steps)
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
                self._traces.start(self._batch)
                self._traces.mark(args[0], step=NONE)
            is_leaf = name != "" and next(module.children(), None) is None
            is_neuron = isinstance(module, SpikingNeuron)
            sequences = self._sequences(module, args)
            examined = self._examined(name, (*args, *kwargs.values()))
            self._scopes.append(
                Scope(name, sequences, is_neuron, is_known_binary(module), examined)
            )
            if is_leaf:
                self._leaf_started(name, module)

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            examined = self._scopes.pop().examined
            spk = output[0] if isinstance(output, tuple) else output
            if isinstance(module, Code) and isinstance(spk, Tensor):
                self._traces.mark(spk, step=ALL)
            elif self._scopes:
                self._traces.pass_on(args, (output,))
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
        for record, step in zip(batch.records, self._steps(batch.records), strict=True):
            tallies = record.tallies()
            for index, tally in enumerate(tallies):
                tally.executions = batch.images if index == 0 or step is None else 0
                record.layer.steps[index + 1 if step is None else step].add(tally)
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

    def _steps(self, records: list[Record]) -> list[int | None]:
        """Return the step of each record; None for one that is split by step.

        A layer repeats all that it does for a caller at every step, or single operations of it.
        """
        steps: list[int | None] = [None if record.is_split else 1 for record in records]
        for calls in _grouped(records, lambda record: (record.layer.position, record.caller)):
            found = self._repeated([records[call] for call in calls])
            for call, step in zip(calls, found or (), strict=False):
                steps[call] = step
            if found is None:
                self._single_operations(records, calls, steps)
        return steps

    def _single_operations(
        self, records: list[Record], calls: list[int], steps: list[int | None]
    ) -> None:
        """Set the steps of calls that are not the same at every step."""
        chosen = [records[call] for call in calls]
        for group in _grouped(chosen, lambda record: record.operation):
            same = [chosen[index] for index in group]
            if any(record.is_split for record in same):
                continue
            known = [record.step for record in same if record.step is not None]
            found = self._repeated(same) if known else None
            if found is None and len(known) == len(same):
                found = known
            for index, step in zip(group, found or (), strict=False):
                steps[calls[index]] = step

    def _repeated(self, records: list[Record]) -> list[int] | None:
        """Return the step of each call, if the calls are the same at every step; else None."""
        part, rest = divmod(len(records), self.num_steps)
        if rest or any(record.operation != records[i % part].operation
                       for i, record in enumerate(records)):  # fmt: skip
            return None
        known = [record.step for record in records if record.step is not None]
        if Counter(known) == dict.fromkeys(range(1, self.num_steps + 1), part):
            return known
        return [call // part + 1 for call in range(len(records))]

    def _sequences(self, module: nn.Module, args: tuple[Any, ...]) -> int | None:
        """Return the number of sequences of a recurrent module whose sequences are the steps."""
        if not isinstance(module, nn.RNNBase) or not isinstance(args[0], Tensor):
            return None
        x = args[0].transpose(0, 1) if module.batch_first and args[0].dim() == 3 else args[0]
        if x.dim() != 3 or len(x) != self.num_steps or self.num_steps == 1:
            return None
        is_inside = x.shape[1] % (self.num_steps * self._batch) == 0
        step = self._traces.of(args[0]).step
        return None if step or (is_inside and step == ALL and module.batch_first) else x.shape[1]

    def _by_step(self, x: Tensor, is_folded: bool = False) -> tuple[Tensor, bool]:
        """Return ``x`` with the steps as first axis, [T or 1, rows, ...], and whether it was split.

        Args:
            x: an operand.
            is_folded: the operation has no separate time axis, only [rows, channels, ...].
        """
        trace = self._traces.of(x)
        self._is_guess = False
        if self.num_steps == 1 or x.dim() == 0 or len(x) == 0 or (trace.step or ALL) > ALL:
            return x.unsqueeze(0), False
        if sequences := self._scopes[-1].sequences if self._scopes else None:
            is_split = len(x) == self.num_steps * sequences
            return (x.unflatten(0, (self.num_steps, -1)) if is_split else x[None]), is_split
        rows, outer = self.num_steps * self._batch, trace.outer
        self._is_guess = trace.step is None and len(x) % rows == 0
        if trace.step in (ALL, None) and len(x) % (outer * rows) == 0:
            if outer == 1:
                return x.unflatten(0, (self.num_steps, -1)), True
            return x.unflatten(0, (outer, self.num_steps, -1)).movedim(1, 0), True
        if not is_folded and self._traces.is_time_first(x, self._has_time_axis(x)):
            return x, True
        return x.unsqueeze(0), False

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
        caller = tuple(scope.name for scope in self._scopes)
        step = self._step if self._step and self._step > ALL else None
        self._records.append(
            Record(layer, tallies, is_split, self._is_guess, self._operation, caller, step)
        )
        return layer

    def _layer(self, name: str, kind: str) -> Layer:
        if (name, kind) not in self._layers:
            self._layers[name, kind] = Layer(name, kind, position=len(self._layers))
        return self._layers[name, kind]


def _grouped(records: list[Record], key: Callable[[Record], Any]) -> list[list[int]]:
    """Return the places of the records that may be calls of one step, grouped by a key."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        if not record.is_split or record.is_guess:
            groups[key(record)].append(place)
    return list(groups.values())
