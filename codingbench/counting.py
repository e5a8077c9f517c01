"""Counts what a network really did: operations and spikes per layer, time step and value class.

    with OperationCounter(network, num_steps) as counter:
        for images in batches:
            network(images, generator)
    rows = counter.layer_rows()

The counter watches the tensor operations themselves (a dispatch mode), so functional calls count
like layers, and a layer counts as often as it runs. :mod:`codingbench.schema` defines the columns.

Steps: an operation on time-folded input ([T * B, ...] or [T, B, ...]) is split by step; one that a
layer runs T times on [B, ...] is split by call; all else runs once for all steps and stands at
step 1.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.encoder import Code
from codingbench.schema import VALUE_CLASSES
from codingbench.value_classes import classify, rows_where

aten = torch.ops.aten
Row = dict[str, Any]
_LEAF_KINDS_WITHOUT_SYNAPSES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass
class _Tally:
    """Totals of one layer at one step."""

    executions: int = 0
    values: int = 0
    nonzero: int = 0
    magnitude: float = 0.0
    spikes: int = 0
    effective: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VALUE_CLASSES, 0))
    dense: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VALUE_CLASSES, 0))
    spiking_acs: float = 0.0  # rate x dense operations, of batches whose input is not real


@dataclass
class _Layer:
    name: str
    kind: str
    position: int
    neurons: int = 0  # per image
    steps: dict[int, _Tally] = field(default_factory=lambda: defaultdict(_Tally))


@dataclass
class _Record:
    """One layer's one execution in the current batch: a tally per step, or for one call."""

    layer: _Layer
    tallies: list[_Tally]
    is_split: bool


class OperationCounter(TorchDispatchMode):
    """Context manager; counts all that the network does inside it.

    Args:
        network: its first positional argument is a batch of images [B, ...].
        num_steps: T.
    """

    def __init__(self, network: nn.Module, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.images = 0
        self._network = network
        self._layers: dict[str, _Layer] = {}
        self._records: list[_Record] = []
        self._scope: list[tuple[str, Tensor | None]] = []  # running modules, input if leaf
        self._ran: dict[str, nn.Module] = {}  # leaf modules with weights that ran
        self._fan_out: dict[Any, Tensor] = {}
        self._handles: list[Any] = []
        self._batch = 0

    def __enter__(self) -> Self:
        for name, module in self._network.named_modules():
            self._handles += [
                module.register_forward_pre_hook(self._entering(name)),
                module.register_forward_hook(self._leaving(name), always_call=True),
            ]
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        for handle in self._handles:
            handle.remove()

    def layer_rows(self) -> list[Row]:
        """One row per layer and step, in order of first execution; columns of table ``layers``."""
        first = next((layer for layer in self._layers.values() if layer.kind == "synapse"), None)
        return [
            self._row(layer, step, tally, layer is first)
            for layer in self._layers.values()
            for step, tally in sorted(layer.steps.items())
        ]

    def uncounted(self) -> list[str]:
        """Layers with weight matrices that ran without any operation the counter knows."""
        counted = {name.split("#")[0] for name in self._layers}
        return [name for name in self._ran if name not in counted]

    # -- following the modules ------------------------------------------------------------------

    def _entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if name == "":
                self._batch = args[0].shape[0]
                self._records = []
            is_leaf = name != "" and next(module.children(), None) is None
            given = args[0] if is_leaf and args and isinstance(args[0], Tensor) else None
            self._scope.append((name, given))
            if is_leaf and _has_weights(module):
                self._ran[name] = module

        return hook

    def _leaving(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._scope.pop()
            spk = output[0] if isinstance(output, tuple) else output
            if isinstance(module, SpikingNeuron) and isinstance(spk, Tensor):
                self._emitted(name, "neuron", spk)
            elif isinstance(module, Code) and isinstance(spk, Tensor):
                self._emitted(name, "code", spk)
            if name == "" and output is not None:
                self._close_batch()

        return hook

    def _close_batch(self) -> None:
        """Give every execution of the batch its step."""
        calls: dict[str, list[_Record]] = defaultdict(list)
        for record in self._records:
            calls[record.layer.name].append(record)
        for records in calls.values():
            per_call = len(records) == self.num_steps and not any(r.is_split for r in records)
            for call, record in enumerate(records):
                for index, tally in enumerate(record.tallies):
                    step = index if record.is_split else call if per_call else 0
                    _add(record.layer.steps[step + 1], tally)
        self.images += self._batch
        self._records = []

    # -- what is counted ------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        packet = func._overloadpacket
        if packet in (aten.linear, aten.matmul, aten.conv2d, aten.conv1d):  # under inference_mode
            with self:
                decomposed = func.decompose(*args, **(kwargs or {}))
            if decomposed is not NotImplemented:
                return decomposed
        output = func(*args, **(kwargs or {}))
        if packet is aten.convolution:
            self._convolution(args, output)
        elif packet in (aten.mm, aten.bmm):
            self._product(args[0], args[1], output)
        elif packet in (aten.addmm, aten.baddbmm):
            self._product(args[1], args[2], output)
        return output

    def _convolution(self, args: tuple[Any, ...], output: Tensor) -> None:
        x, weight, groups = args[0], args[1], args[8]
        fan_out = self._fan_outs(args, output)
        if args[6]:  # transposed: weight is [in, out / groups, *kernel]
            dense = x[0].numel() * weight[0].numel()
        else:
            dense = output[0].numel() * weight[0].numel()
        out_per_group = weight.shape[1] if args[6] else weight.shape[0] // groups
        self._synapse(x, fan_out, out_per_group, dense * x.shape[0])

    def _fan_outs(self, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """How many output positions read each input position, [*positions]; padding is exact."""
        x, weight, _, stride, padding, dilation, transposed, output_padding, _ = args
        geometry = (x.shape[2:], weight.shape[2:], *map(tuple, (stride, padding, dilation)))
        key = (*geometry, transposed, tuple(output_padding))
        if key not in self._fan_out:
            image, kernel, reached = (
                torch.ones(1, 1, *tensor.shape[2:]) for tensor in (x, weight, output)
            )
            gradient, _, _ = aten.convolution_backward(
                reached, image, kernel, None, stride, padding, dilation, transposed,
                output_padding, 1, [True, False, False],
            )  # fmt: skip
            self._fan_out[key] = gradient[0, 0].double().round()
        return self._fan_out[key]

    def _product(self, x: Tensor, weight: Tensor, output: Tensor) -> None:
        fan_out = torch.tensor(float(weight.shape[-1]), dtype=torch.float64)
        self._synapse(x, fan_out, 1, x.numel() * weight.shape[-1])

    def _synapse(self, x: Tensor, fan_out: Tensor, copies: int, dense: int) -> None:
        """Tally one operation whose input ``x`` has ``fan_out * copies`` per value."""
        name, given = self._scope[-1] if self._scope else ("", None)
        x, is_split = self._by_step(x, given)
        tallies = [self._tally_input(part, fan_out, copies, dense // len(x)) for part in x.unbind()]
        self._records.append(_Record(self._layer(name, "synapse"), tallies, is_split))

    def _tally_input(self, x: Tensor, fan_out: Tensor, copies: int, dense: int) -> _Tally:
        """``x`` is all input of one step: [rows, channels, *positions] or [rows, features]."""
        x = x.flatten(0, -1 - max(1, fan_out.dim()))  # (row, *position)
        present = rows_where(torch.ne, x, 0)
        nonzero = int(present.sum())
        value_class, magnitude = classify(x, nonzero)
        tally = _Tally(self._batch, x.numel(), nonzero, magnitude)
        tally.effective[value_class] = int((present * fan_out).sum()) * copies
        tally.dense[value_class] = dense
        if value_class != "real":
            tally.spiking_acs = magnitude / x.numel() * dense
        return tally

    def _emitted(self, name: str, kind: str, spk: Tensor) -> None:
        """Tally the spikes of a neuron, or the non-zero values of the code."""
        layer = self._layer(name, kind)
        spk, is_split = self._by_step(spk, spk)
        layer.neurons = spk[0].numel() // self._batch
        spikes = [int(rows_where(torch.ne, part, 0).sum()) for part in spk.unbind()]
        tallies = [_Tally(self._batch, spikes=count) for count in spikes]
        self._records.append(_Record(layer, tallies, is_split))

    def _by_step(self, x: Tensor, given: Tensor | None) -> tuple[Tensor, bool]:
        """``x`` with the steps as its first axis, [T or 1, rows, ...], and whether it was split.

        ``given`` is the input of the leaf module around the operation: its first axis tells how
        the rows of ``x`` were folded. Outside of leaf modules the rows themselves must do: a
        multiple of T * B is taken for folded time.
        """
        folded = self.num_steps * self._batch
        if given is not None:
            is_split = given.shape[:2] == (self.num_steps, self._batch) or len(given) == folded
        else:
            x = x.squeeze(0) if x.dim() > 2 and len(x) == 1 else x  # einsum's one-matrix batch
            is_split = len(x) % folded == 0
        if not is_split:
            return x.unsqueeze(0), False
        if x.shape[:2] == (self.num_steps, self._batch):
            return x, True
        return x.unflatten(0, (self.num_steps, -1)), True

    def _layer(self, name: str, kind: str) -> _Layer:
        if name in self._layers and self._layers[name].kind != kind:
            name = f"{name}#{kind}"
        if name not in self._layers:
            self._layers[name] = _Layer(name, kind, position=len(self._layers))
        return self._layers[name]

    def _row(self, layer: _Layer, step: int, tally: _Tally, is_first: bool) -> Row:
        spiking = layer.kind != "synapse"
        is_paper_mac = is_first and tally.dense["real"] > 0
        seen = [c for c in VALUE_CLASSES if tally.dense[c]]
        return {
            "layer": layer.name,
            "position": layer.position,
            "kind": layer.kind,
            "step": step,
            "images": self.images,
            "executions": tally.executions,
            "input_class": None if spiking else (seen or ["binary"])[-1],
            "input_values": tally.values,
            "input_nonzero": tally.nonzero,
            "input_rate": tally.magnitude / tally.values if tally.values else 0.0,
            **{f"effective_{c}": tally.effective[c] for c in VALUE_CLASSES},
            **{f"dense_{c}": tally.dense[c] for c in VALUE_CLASSES},
            "paper_first_macs": tally.dense["real"] if is_paper_mac and step == 1 else 0,
            "paper_acs": tally.spiking_acs,
            "spikes": tally.spikes,
            "neurons": layer.neurons,
            "firing_rate": tally.spikes / (layer.neurons * self.images) if spiking else 0.0,
        }


def _has_weights(module: nn.Module) -> bool:
    if isinstance(module, _LEAF_KINDS_WITHOUT_SYNAPSES):
        return False
    return any(p.dim() > 1 for p in module.parameters(recurse=False))


def _add(total: _Tally, part: _Tally) -> None:
    total.executions += part.executions
    total.values += part.values
    total.nonzero += part.nonzero
    total.magnitude += part.magnitude
    total.spikes += part.spikes
    total.spiking_acs += part.spiking_acs
    for value_class in VALUE_CLASSES:
        total.effective[value_class] += part.effective[value_class]
        total.dense[value_class] += part.dense[value_class]
