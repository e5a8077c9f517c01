"""Follows a network through its modules: what runs is given a layer and a time step.

Operations are recorded as they come; when a batch is through, each is given its step:

- time-folded input ([T * B, ...] or [T, B, ...]) was split by step;
- what a layer runs T times on [B, ...] is split by call;
- all else ran once for all steps and stands at step 1.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from codingbench.counting.tally import Layer, Record, Tally
from codingbench.encoder import Code
from codingbench.neurons import is_known_binary


@dataclass(frozen=True)
class Scope:
    """A running module; ``given`` is its first input if it has no modules inside."""

    name: str
    given: Tensor | None
    is_neuron: bool
    is_pure: bool  # changes no tensor but its own


class Follower:
    """Base of the counter: knows the running module, the batch, and every layer so far."""

    def __init__(self, network: nn.Module, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.images = 0
        self._network = network
        self._batch = 0
        self._scopes: list[Scope] = []  # running modules, the innermost last
        self._operation: Any = None  # the one being counted, and the shape of its result
        self._layers: dict[tuple[str, str], Layer] = {}
        self._records: list[Record] = []
        self._time_axes: dict[tuple[str, Any], bool] = {}
        self._lost = 0  # batches whose pass failed or gave nothing
        self._handles: list[Any] = []

    def _follow(self) -> None:
        for name, module in self._network.named_modules():
            self._handles += [
                module.register_forward_pre_hook(self._entering(name)),
                module.register_forward_hook(self._leaving(name), always_call=True),
            ]

    def _let_go(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _ran(self, name: str, module: nn.Module) -> None:
        """A module without modules inside begins."""

    def _emitted(self, name: str, module: nn.Module, spk: Tensor) -> None:
        """A neuron or the encoder has emitted spikes or a code."""

    def _batch_done(self) -> None:
        """The network has seen a batch."""

    def _entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._scopes:
                self._batch = args[0].shape[0]
                self._records = []
            is_leaf = name != "" and next(module.children(), None) is None
            given = args[0] if is_leaf and args and isinstance(args[0], Tensor) else None
            is_neuron = isinstance(module, SpikingNeuron)
            self._scopes.append(Scope(name, given, is_neuron, is_known_binary(module)))
            if is_leaf:
                self._ran(name, module)

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._scopes.pop()
            spk = output[0] if isinstance(output, tuple) else output
            if isinstance(module, SpikingNeuron | Code) and isinstance(spk, Tensor):
                with _disable_current_modes():
                    self._emitted(name, module, spk)
            if not self._scopes and output is None:
                self._lost += 1
            elif not self._scopes:
                self._close_batch()

        return hook

    def _close_batch(self) -> None:
        """Give every execution of the batch its step."""
        calls: dict[int, list[Record]] = defaultdict(list)
        for record in self._records:
            calls[record.layer.position].append(record)
        for records in calls.values():
            per_step = self._calls_per_step(records)
            for call, record in enumerate(records):
                for index, tally in enumerate(record.tallies):
                    step = index if record.is_split else call // per_step
                    record.layer.steps[step + 1].add(tally)
        self.images += self._batch
        self._records = []
        self._batch_done()

    def _calls_per_step(self, records: list[Record]) -> int:
        """How many of a layer's calls make a step: a Tth of them if they repeat T times, else all
        of them, once for all steps."""
        part = len(records) // self.num_steps
        repeats = len(records) == part * self.num_steps and all(
            record.operation == records[call % part].operation and not record.is_split
            for call, record in enumerate(records)
        )
        return part if repeats else len(records)

    def _by_step(
        self, x: Tensor, given: Tensor | None, is_folded: bool = False
    ) -> tuple[Tensor, bool]:
        """``x`` with the steps as its first axis, [T or 1, rows, ...], and whether it was split.

        ``given`` tells how the rows of ``x`` were folded: ``x`` itself, or the input of the leaf
        module around the operation. Without one, rows that are a multiple of T * B are taken for
        folded time. ``is_folded``: the operation knows no time axis, only [rows, channels, ...].
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
        """Whether ``x`` is [T, B, ...].

        In a batch of T images it may as well be [B, ...] with T features: then as the same
        operation of the same module had it in batches of another size, if there were any.
        """
        looks_so = x.shape[:2] == (self.num_steps, self._batch)
        which = (self._scopes[-1].name if self._scopes else "", self._operation[0])
        if self.num_steps == self._batch > 1:
            return looks_so and self._time_axes.get(which, True)
        self._time_axes[which] = looks_so
        return looks_so

    def _record(
        self, kind: str, tallies: list[Tally], is_split: bool, name: str | None = None
    ) -> Layer:
        layer = self._layer(self._scopes[-1].name if name is None else name, kind)
        for tally in tallies:
            tally.executions = self._batch
        self._records.append(Record(layer, tallies, is_split, self._operation))
        return layer

    def _layer(self, name: str, kind: str) -> Layer:
        if (name, kind) not in self._layers:
            self._layers[name, kind] = Layer(name, kind, position=len(self._layers))
        return self._layers[name, kind]
