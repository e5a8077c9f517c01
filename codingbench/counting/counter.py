"""Count the operations and spikes that a network executes, per layer, step and value class.

    with OperationCounter(network, num_steps) as counter:
        for images in batches:
            network(images, generator)
    rows = counter.layer_rows()

The counter is a dispatch mode: it sees every tensor operation. Functional calls are therefore
counted like layers, and a layer is counted each time it runs. The columns are defined in
:mod:`codingbench.schema`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.counting import synapses
from codingbench.counting.elementwise import (
    NORMS,
    POOLS,
    PRODUCTS,
    SUMS,
    WINDOWS,
    is_harmless,
    norm_counts,
    pool_counts,
    values_read,
)
from codingbench.counting.following import Follower
from codingbench.counting.tally import Counts, Row, Tally
from codingbench.counting.value_classes import Measurements, Totals, Values, sub_spikes
from codingbench.counting.weights import WeightTracker
from codingbench.encoder import Code
from codingbench.neurons import is_known_binary
from codingbench.runtime.lean_torch import spare_compiler

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_ATTENTION = "_scaled_dot_product_"


class OperationCounter(Follower, TorchDispatchMode):
    """Context manager that counts all operations of a network.

    Args:
        network: a module whose first positional argument is a batch of images [B, ...].
        num_steps: number of time steps T.
    """

    def __init__(self, network: nn.Module, num_steps: int) -> None:
        super().__init__(network, num_steps)
        spare_compiler(OperationCounter)
        self._weights = WeightTracker(network)
        self._measured = Measurements()
        self._integers: tuple[Tensor, int] | None = None  # the last of a neuron with sub-steps
        self._unknown: dict[str, None] = {}  # uncounted names in order

    def __enter__(self) -> Self:
        self._add_hooks()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._remove_hooks()

    def layer_rows(self) -> list[Row]:
        """Return one row per layer and step, in order of first execution, as in table ``layers``.

        Raises:
            RuntimeError: the network raised an error or returned None for some batch, whose
                operations are therefore missing from the counts.
        """
        if self._failed_batches:
            raise RuntimeError(
                f"the network failed or returned None for {self._failed_batches} batches"
            )
        layers = list(self._layers.values())
        first = next((layer for layer in layers if layer.kind == "synapse"), None)
        return [row for layer in layers for row in layer.rows(self.images, layer is first)]

    def uncounted(self) -> list[str]:
        """Return what used weight matrices or kernels without any operation that could be counted.

        Layers are given by name, single operations as ``layer:operation``.
        """
        counted = {layer.name for layer in self._layers.values() if layer.kind == "synapse"}
        return [name for name in self._unknown if name not in counted]

    def _leaf_started(self, name: str, module: nn.Module) -> None:
        if self._weights.has_matrix(module):
            self._unknown[name] = None

    def _batch_done(self) -> None:
        self._measured.forget()
        self._weights.forget_derived()
        self._integers = None

    # -- operations -----------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable and not (self._scopes and self._scopes[-1].is_pure):
            self._measured.forget()
        if not self._scopes or self._scopes[-1].is_neuron:
            return func(*args, **kwargs)
        packet = func._overloadpacket
        if packet not in NORMS and _is_composite(func):  # not decomposed under inference_mode
            return self._run_counted(lambda: func.decompose(*args, **kwargs))
        output = func(*args, **kwargs)
        self._operation = func, getattr(output, "shape", None)
        if func.is_view or not _is_number(output) or self._weights.derives(args, output):
            return output  # masks, and values computed from weights alone: casts, pruned weights
        if packet is aten.convolution:
            self._convolution(args, output)
        elif packet in (aten.mm, aten.bmm):
            self._product(args[0], args[1], None)
        elif packet in (aten.addmm, aten.baddbmm):
            self._product(args[1], args[2], args[0])
        elif packet in NORMS:
            self._norm(packet, args)
        elif packet in POOLS:
            self._pool(func, args, output[0] if isinstance(output, tuple) else output)
        elif packet in SUMS or packet in PRODUCTS:
            self._elementwise(packet, args, output)
        elif packet.__name__.startswith(_ATTENTION):
            self._attention(func, args, kwargs)
        elif self._weights.any_matrix(args) and not is_harmless(func):
            self._unknown[f"{self._scopes[-1].name or 'network'}:{packet.__name__}"] = None
        return output

    def _convolution(self, args: tuple[Any, ...], output: Tensor) -> None:
        x, is_split = self._by_step(args[0], args[0], is_folded=True)
        parts = self._values(x)
        tallies = synapses.convolution(parts, args, output, self._ledger)
        self._record("synapse", tallies, is_split)

    def _product(self, x: Tensor, y: Tensor, added: Tensor | None) -> None:
        if self._weights.owns(x) and not self._weights.owns(y):
            x, y = y.transpose(-1, -2), x.transpose(-1, -2)
        x = x.squeeze(0) if x.dim() > 2 and len(x) == 1 else x  # einsum adds a batch axis of size 1
        steps, is_split = self._by_step(x, self._scopes[-1].given)
        if self._weights.owns(y):
            parts = self._values(steps)
            is_biased = added is not None and self._weights.owns(added)
            tallies = synapses.weighted(parts, steps, y, is_biased, self._ledger)
        else:
            y = y.squeeze(0) if y.dim() > x.dim() else y
            others = y.unflatten(0, (len(steps), -1)) if y.dim() > 2 else y.unsqueeze(0)
            parts = self._measured.values(steps, self._ledger)
            measured = self._measured.values(others, self._ledger)
            tallies = synapses.product(parts, steps, measured, others, self._ledger)
        self._record("synapse", tallies, is_split)

    def _values(self, x: Tensor) -> Sequence[Values]:
        """Measure the input of a synapse, where c spikes of a neuron with sub-steps count c times.

        The input is such spikes if it equals the last ones in every value; it may be a copy.
        """
        if self._integers is not None:
            spk, sub_steps = self._integers
            if x.shape == spk.shape and self._ledger.decide(lambda: (x == spk).all()):
                return sub_spikes(x, sub_steps, self._ledger)
        return self._measured.values(x, self._ledger)

    def _attention(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count a fused attention as its two products, unscaled, so that spikes stay spikes."""
        names = (argument.name for argument in func._schema.arguments)
        given = dict(zip(names, args, strict=False)) | kwargs
        self._run_counted(
            lambda: aten._scaled_dot_product_attention_math(
                *(given[name] for name in ("query", "key", "value")),
                given.get("attn_mask", given.get("attn_bias")),
                0.0,
                given.get("is_causal", False),
                scale=1.0,
            )
        )

    def _run_counted(self, run: Callable[[], Any]) -> Any:
        """Run a function with this mode on; torch turns the mode off inside its own dispatch."""
        super().__enter__()
        try:
            return run()
        finally:
            super().__exit__(None, None, None)

    def _norm(self, packet: Any, args: tuple[Any, ...]) -> None:
        x, is_split = self._by_step(args[0], args[0], packet is not aten.native_layer_norm)
        is_affine = any(isinstance(arg, Tensor) and self._weights.owns(arg) for arg in args[1:])
        rates, size = self._measured.spike_rates(x, self._ledger), x.numel() // len(x)
        self._record(
            "norm",
            lambda: [Tally(counts=norm_counts(size, is_affine, rate.value)) for rate in rates],
            is_split,
        )

    def _pool(self, func: Any, args: tuple[Any, ...], output: Tensor) -> None:
        x, is_split = self._by_step(args[0], args[0], func._overloadpacket in WINDOWS)
        size, produced = x.numel() // len(x), output.numel() // len(x)
        read = values_read(func, args, size, produced)
        rates = self._measured.spike_rates(x, self._ledger)
        self._record(
            "pool",
            lambda: [Tally(counts=pool_counts(size, read, produced, rate.value)) for rate in rates],
            is_split,
        )

    def _elementwise(self, packet: Any, args: tuple[Any, ...], output: Tensor) -> None:
        """Count a sum or product of activations or parameters, but not of constants."""
        factors = [arg for arg in args[:2] if isinstance(arg, Tensor)]
        if len(factors) < 2 or any(map(self._weights.is_constant, factors)):
            return
        if packet in PRODUCTS:
            kind, name = "gate", "gate_muls"
        elif any(map(self._weights.owns, factors)):
            kind, name = "bias", "bias_adds"
        else:
            kind, name = "residual", "residual_adds"
        x, is_split = self._by_step(output, output)
        steps, size = len(x), x.numel() // len(x)
        self._record(kind, lambda: [Tally(counts={name: size}) for _ in range(steps)], is_split)

    def _emitted(self, name: str, module: nn.Module, spk: Tensor) -> None:
        """Count the spikes of a neuron, or the non-zero values of the code."""
        kind = "code" if isinstance(module, Code) else "neuron"
        self._operation = kind, spk.shape
        x, is_split = self._by_step(spk, spk)
        measured = self._measured.values(x, self._ledger, is_known_binary(module))
        totals = [values.totals for values in measured]
        sub_steps: int = getattr(module, "sub_steps", 1)
        if sub_steps > 1:
            self._integers = x, sub_steps
        layer = self._record(
            kind, lambda: [_emission(kind, each, sub_steps) for each in totals], is_split, name
        )
        layer.neurons = x[0].numel() // self._batch


def _emission(kind: str, totals: Totals, sub_steps: int) -> Tally:
    """Return the tally of a code, or of the spikes of a neuron, at one step."""
    counts: Counts = {"neuron_updates": sub_steps * totals.size} if kind == "neuron" else {}
    return Tally(spikes=int(totals.nonzero.value), counts=counts)


def _is_number(output: Any) -> bool:
    """Return whether the output has floating-point numbers, not booleans or indices."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return isinstance(first, Tensor) and first.is_floating_point()


@cache
def _is_composite(func: Any) -> bool:
    return bool(func.has_kernel_for_dispatch_key(_COMPOSITE))
