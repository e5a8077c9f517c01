"""Count the operations and spikes that a network executes, per layer, step and value class.

    with OperationCounter(network, num_steps) as counter:
        for images in batches:
            network(images, generator)
    rows = counter.layer_rows()

The counter is a dispatch mode: it sees every tensor operation. Functional calls are therefore
counted like layers, and a layer is counted each time it runs. The columns are defined in
:mod:`codingbench.schema`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from math import lcm
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.counting import lemaire, synapses
from codingbench.counting.decompositions import plain_version
from codingbench.counting.elementwise import (
    NORMS,
    POOLS,
    PRODUCT_SUMS,
    PRODUCTS,
    SQUARES,
    SUMS,
    WINDOWS,
    factor_of,
    is_free,
    norm_counts,
    pool_counts,
    values_read,
)
from codingbench.counting.following import Follower
from codingbench.counting.spiking import THRESHOLDS, Given
from codingbench.counting.tally import Counts, Record, Row, Tally
from codingbench.counting.traces import Product, tensors
from codingbench.counting.transforms import TRANSFORMS, products_each, transform_macs
from codingbench.counting.value_classes import Measurements, Totals, Values, sub_spikes
from codingbench.counting.weights import WeightTracker
from codingbench.encoder import Code
from codingbench.neurons import is_known_binary
from codingbench.runtime.lean_torch import spare_compiler

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_MEANS: Final = (aten.mean, aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d)
_TRANSFORM = ":fft"
_COMPLEX: Final = 4  # real products in one of two complex numbers
_MOST_PARTS: Final = 2**20
_MOST_INTEGERS: Final = 4  # emissions of neurons with sub-steps that are remembered


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
        self._unknown: dict[str, bool] = {}  # uncounted names: is a weight involved
        self._understood: set[str] = set()  # layers whose weights were seen in use
        # the last of neurons with sub-steps: a shortcut reads those from before its block
        self._integers: deque[tuple[Tensor, int]] = deque(maxlen=_MOST_INTEGERS)

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
        layers = self._neurons.kept(self._layers.values())
        first = next((layer for layer in layers if _is_synaptic(layer.name, layer.kind)), None)
        return [
            row | {"position": position}
            for position, layer in enumerate(layers)
            for row in layer.rows(self.images, layer is first)
        ]

    def uncounted(self) -> list[str]:
        """Return the work that was not counted.

        Layers with a weight matrix that no operation used are given by name, for example because
        they leave torch. Operations are given as ``layer:operation``: those on a weight or on
        several signals which the counter does not know, and those on one signal which may multiply.
        """
        neurons = self._neurons.found(self._layers.values())  # their arithmetic is an update
        understood = self._understood | neurons
        return [
            name
            for name, is_weighty in self._unknown.items()
            if name not in understood and (is_weighty or name.partition(":")[0] not in neurons)
        ]

    def undecided(self, part: str) -> list[str]:
        """Return the modules of a part that may be neurons, but are counted as none or in part.

        Args:
            part: ``encoder`` or ``backbone``.
        """
        return self._neurons.undecided(self._layers.values(), part)

    def _leaf_started(self, name: str, module: nn.Module) -> None:
        if self._weights.has_matrix(module):
            self._unknown[name] = True

    def _batch_done(self) -> None:
        self._measured.forget()
        self._weights.forget_derived()
        self._integers.clear()

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
        if packet in THRESHOLDS and not self._weights.any_matrix(args):
            self._neurons.thresholded(self._scopes[-1].name, output)
        if self._weights.derives(args, output):
            return output  # computed from weights alone: casts, pruned weights
        is_created = self._weights.creates(func, args, output)
        self._traces.follow(func, args, output, self._looks_timed(func, args))
        is_view = func.is_view or torch.Tag.inplace_view in func.tags
        if not is_view and not is_created and (_is_number(output) or packet in _MATRIX_PRODUCTS):
            self._operation = (*self._operation, *self._weights.parameters(args))
            self._step = self._traces.latest(args)
            self._count(func, args, kwargs, output)
        return output

    def _looks_timed(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Return whether the first argument has the axes [T, B, ...], where it matters."""
        x = args[0] if args else None
        if not isinstance(x, Tensor) or self._weights.owns(x):
            return False
        return self._traces.matters(func, x) and self._has_time_axis(x)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Count an operation, or name it as uncounted."""
        packet = func._overloadpacket
        has_weight = self._weights.owns_any(args)
        if has_weight:
            self._understood.add(self._scopes[-1].name)
        if packet is aten.convolution:
            self._convolution(args, output)
        elif packet in _MATRIX_PRODUCTS:
            self._product(*_MATRIX_PRODUCTS[packet](*args[:3]))
        elif packet in TRANSFORMS:
            self._transform(packet, args, output)
        elif packet in NORMS:
            self._norm(packet, args)
        elif packet in POOLS:
            self._pool(func, args, output[0] if isinstance(output, tuple) else output)
        elif packet in SUMS or packet in PRODUCTS:
            self._elementwise(packet, args, output)
        elif packet in PRODUCT_SUMS or packet in SQUARES or _is_power(packet, args):
            self._single_products(packet, args)
        elif (run := plain_version(func, args, kwargs)) is not None:
            self._run_counted(run)
        elif next(tensors(args), None) is not None and not is_free(
            func, has_weight=has_weight, is_binary=self._is_binary(args)
        ):
            self._understood.discard(self._scopes[-1].name)
            self._unknown[f"{self._scopes[-1].name or 'network'}:{packet.__name__}"] = has_weight

    def _is_binary(self, args: tuple[Any, ...]) -> bool:
        """Return whether several of the arguments are tensors of signals."""
        return sum(not self._weights.is_constant(x) for x in tensors(args)) > 1

    def _convolution(self, args: tuple[Any, ...], output: Tensor) -> None:
        x, is_split = self._by_step(args[0], is_folded=True)
        parts = self._values(x, self._traces.of(args[0]).parts)
        tallies = synapses.convolution(parts, args, output, self._ledger)
        shape = lemaire.shape_of_convolution(args, output, len(parts), self._batch)
        self._record("synapse", lemaire.with_counts(tallies, shape), is_split)

    def _product(self, x: Tensor, y: Tensor, added: Tensor | None) -> None:
        if self._weights.owns(x) and not self._weights.owns(y):
            x, y = self._traces.like(y.transpose(-1, -2), y), x.transpose(-1, -2)
        if x.is_complex() or y.is_complex():
            each = products_each(x, y)
            self._multiply("synapse", x, each * x.numel() * y.shape[-1])
            return
        given = x
        x = x.squeeze(0) if x.dim() > 2 and len(x) == 1 else x  # einsum adds a batch axis of size 1
        y = y.squeeze(0) if y.dim() > x.dim() else y
        is_grouped = self._weights.owns(y) and y.dim() > 2  # the rows are the second axis of x
        x = self._traces.like(x.movedim(0, 1) if is_grouped else x, given)
        steps, is_split = self._by_step(x, is_folded=x.dim() < 3)
        of = self._traces.of(x).parts
        if self._weights.owns(y):
            parts = self._values(steps, of)
            is_biased = added is not None and self._weights.owns(added)
            tallies = synapses.weighted(parts, steps, y, is_biased, self._ledger)
            held = y.numel() + (y.shape[-1] if is_biased else 0)
        else:
            others = y.unflatten(0, (len(steps), -1)) if y.dim() > 2 else y.unsqueeze(0)
            parts = self._measured.values(steps, self._ledger, parts=of)
            measured = self._measured.values(others, self._ledger)
            tallies = synapses.product(parts, steps, measured, others, self._ledger)
            held = others[0].numel() // self._batch
        outputs = steps[0].numel() // steps.shape[-1] * y.shape[-1]
        shape = lemaire.Shape(self._batch, outputs, held)
        self._record("synapse", lemaire.with_counts(tallies, shape), is_split)

    def _values(self, x: Tensor, parts: int) -> Sequence[Values]:
        """Measure the input of a synapse, where c spikes of a neuron with sub-steps count c times.

        The input is such spikes if it equals recent ones in every value; it may be a copy.
        ``parts`` is as :meth:`Measurements.values` takes it.
        """
        for spk, sub_steps in reversed(self._integers):
            if x.shape == spk.shape and self._ledger.decide(partial(_are_equal, x, spk)):
                return sub_spikes(x, sub_steps, self._ledger)
        return self._measured.values(x, self._ledger, parts=parts)

    def _transform(self, packet: Any, args: tuple[Any, ...], output: Tensor) -> None:
        macs, times = transform_macs(packet, args, output)
        name = (self._scopes[-1].name or "network") + _TRANSFORM
        self._multiply("synapse", args[0], macs * times, name)

    def _multiply(self, kind: str, x: Tensor, macs: int, name: str | None = None) -> None:
        """Count multiply-accumulates that do not depend on the values of ``x``."""
        steps, is_split = self._by_step(x)
        count, size = macs // len(steps), x.numel() // len(steps)
        tallies = [synapses.multiplications(count, size) for _ in range(len(steps))]
        shape = lemaire.Shape(self._batch, size, parameters=0)
        self._record(kind, lemaire.with_counts(lambda: tallies, shape), is_split, name)

    def _single_products(self, packet: Any, args: tuple[Any, ...]) -> None:
        """Count operations with one product for each value, except those with constants."""
        factors = [x for x in tensors(args) if not self._weights.is_constant(x)]
        if not factors or (packet in PRODUCT_SUMS and len(factors) < 2):
            return
        largest = max(factors, key=Tensor.numel)
        name = "pool_ops" if packet is aten.cumsum else "gate_muls"
        self._per_value("pool" if packet is aten.cumsum else "gate", name, largest)

    def _per_value(self, kind: str, name: str, x: Tensor, each: int = 1) -> Record:
        """Count ``each`` operations for every value."""
        steps, is_split = self._by_step(x)
        count, number = each * (steps.numel() // len(steps)), len(steps)
        self._record(kind, lambda: [Tally(counts={name: count}) for _ in range(number)], is_split)
        return self._records[-1]

    def _run_counted(self, run: Callable[[], Any]) -> Any:
        """Run a function with this mode on; torch turns the mode off inside its own dispatch."""
        super().__enter__()
        try:
            return run()
        finally:
            super().__exit__(None, None, None)

    def _norm(self, packet: Any, args: tuple[Any, ...]) -> None:
        x, is_split = self._by_step(args[0], packet is not aten.native_layer_norm)
        is_affine = any(isinstance(arg, Tensor) and self._weights.owns(arg) for arg in args[1:])
        rates, size = self._measured.spike_rates(x, self._ledger), x.numel() // len(x)
        self._record(
            "norm",
            lambda: [Tally(counts=norm_counts(size, is_affine, rate.value)) for rate in rates],
            is_split,
        )

    def _pool(self, func: Any, args: tuple[Any, ...], output: Tensor) -> None:
        packet = func._overloadpacket
        if packet in (aten.sum, aten.mean) and self._is_contraction(args):
            self._contraction(args[0], output.numel())
            return
        x, is_split = self._by_step(args[0], packet in WINDOWS)
        size, produced = x.numel() // len(x), output.numel() // len(x)
        read = values_read(func, args, size, produced)
        rates = self._measured.spike_rates(x, self._ledger)
        self._record(
            "pool",
            lambda: [Tally(counts=pool_counts(size, read, produced, rate.value)) for rate in rates],
            is_split,
        )
        if packet in _MEANS or packet.__name__.startswith("avg_pool"):
            window = round(read / max(1, produced))
            parts = min(_MOST_PARTS, self._traces.of(args[0]).parts * window)
            self._traces.mark(output, parts=parts)

    def _is_contraction(self, args: tuple[Any, ...]) -> bool:
        """Return whether products of two tensors are summed over an axis of both."""
        product = self._traces.of(args[0]).product
        given = args[1] if len(args) > 1 and args[1] else range(args[0].dim())
        axes = [given] if isinstance(given, int) else given
        return product is not None and product.is_contracted(axes, args[0].dim())

    def _contraction(self, products: Tensor, sums: int) -> None:
        """Count a sum over products as the matrix product that it is."""
        product = self._traces.of(products).product
        assert product is not None
        self._records = [each for each in self._records if each is not product.record]
        x, y = product.x, product.y
        if products.is_complex():
            self._multiply("synapse", products, products_each(x, y) * products.numel())
            return
        if self._weights.owns(x):
            x, y = y, x
        whole, _ = self._by_step(products)
        steps, is_split = self._by_step(self._traces.like(_unrepeated(x), x))
        parts = self._values(steps, self._traces.of(x).parts)
        if self._weights.owns(y):
            dense = products.numel() // len(steps)
            tallies = synapses.broadcast(parts, steps, y, dense, self._ledger)
            held = _unrepeated(y).numel()
        else:
            others, _ = self._by_step(self._traces.like(_unrepeated(y), y))
            measured = self._measured.values(others, self._ledger)
            if len(steps) < len(others):
                parts, measured, is_split = measured, parts, True
            tallies = synapses.summed(parts, measured, whole, self._ledger)
            held = others[0].numel() // self._batch
        shape = lemaire.Shape(self._batch, sums // len(whole), held)
        self._record("synapse", lemaire.with_counts(tallies, shape), is_split)

    def _elementwise(self, packet: Any, args: tuple[Any, ...], output: Tensor) -> None:
        """Count a sum or product of activations or parameters, but not of constants."""
        factors = [arg for arg in args[:2] if isinstance(arg, Tensor)]
        if packet in PRODUCTS:
            self._gate(packet, args, factors, output)
        elif len(factors) == 2 and not any(map(self._weights.is_constant, factors)):
            is_bias = any(map(self._weights.owns, factors))
            kind, name = ("bias", "bias_adds") if is_bias else ("residual", "residual_adds")
            self._per_value(kind, name, output, each=1 + output.is_complex())

    def _gate(
        self, packet: Any, args: tuple[Any, ...], factors: list[Tensor], output: Tensor
    ) -> None:
        divisor = 1 / factor_of(packet, args)
        if 1 < divisor < _MOST_PARTS and abs(divisor - round(divisor)) < 1e-9 * divisor:
            parts = lcm(self._traces.of(output).parts, round(divisor))
            self._traces.mark(output, parts=min(_MOST_PARTS, parts))
        if len(factors) < 2:
            return
        each = products_each(*factors)
        constants = [x for x in factors if self._weights.is_constant(x)]
        is_folded = any(x.dim() == 0 or each < _COMPLEX for x in constants)
        record = None if is_folded else self._per_value("gate", "gate_muls", output, each)
        if packet is aten.mul and not any(x.dim() == 0 for x in factors):
            self._traces.mark(output, product=Product(factors[0], factors[1], record))

    def _emitted(
        self, name: str, module: nn.Module, spk: Tensor, examined: Given | None = None
    ) -> None:
        """Count the spikes of a neuron, or the non-zero values of the code."""
        kind = "code" if isinstance(module, Code) else "neuron"
        self._operation = kind, spk.shape
        self._step = self._traces.latest((spk,))
        x, is_split = self._by_step(spk)
        measured = self._measured.values(x, self._ledger, is_known_binary(module))
        totals, images = [values.totals for values in measured], self._batch
        sub_steps: int = getattr(module, "sub_steps", 1)
        if sub_steps > 1:
            self._integers.append((x, sub_steps))

        def tallies() -> list[Tally]:
            return [_emission(kind, each, images, sub_steps) for each in totals]

        made = self._neurons.witnessed(name, examined, tallies) if examined else tallies
        layer = self._record(kind, made, is_split, name)
        layer.neurons = x[0].numel() // self._batch


def _are_equal(x: Tensor, spk: Tensor) -> Tensor:
    return (x == spk).all()


def _emission(kind: str, totals: Totals, images: int, sub_steps: int) -> Tally:
    """Return the tally of a code, or of the spikes of a neuron, at one step of a batch."""
    spikes, counts = int(totals.nonzero.value), Counts()
    if kind == "neuron":
        counts = {"neuron_updates": sub_steps * totals.size}
        counts |= lemaire.of_neurons(sub_steps * totals.size, spikes, images)
    return Tally(spikes=spikes, counts=counts)


def _is_number(output: Any) -> bool:
    """Return whether the output has real or complex numbers, not booleans or indices."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return isinstance(first, Tensor) and (first.is_floating_point() or first.is_complex())


def _unrepeated(x: Tensor) -> Tensor:
    """Return a tensor without the copies that ``expand`` made."""
    for axis in range(x.dim()):
        if x.stride(axis) == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x


def _is_synaptic(name: str, kind: str) -> bool:
    """Return whether a layer multiplies by weights, not in a Fourier transform."""
    return kind == "synapse" and not name.endswith(_TRANSFORM)


def _is_power(packet: Any, args: tuple[Any, ...]) -> bool:
    """Return whether an operation multiplies signals with themselves."""
    is_power = packet in (aten.pow, aten.pow_) and isinstance(args[1], int | float)
    return is_power and args[1] == int(args[1]) and args[1] > 1


_MATRIX_PRODUCTS: Final[dict[Any, Callable[..., tuple[Tensor, Tensor, Tensor | None]]]] = {
    aten.mm: lambda x, y, *_: (x, y, None),
    aten.bmm: lambda x, y, *_: (x, y, None),
    aten.addmm: lambda added, x, y: (x, y, added),
    aten.addmm_: lambda added, x, y: (x, y, added),
    aten.baddbmm: lambda added, x, y: (x, y, added),
    aten.baddbmm_: lambda added, x, y: (x, y, added),
    aten.addbmm: lambda added, x, y: (x, y, added),
    aten.addbmm_: lambda added, x, y: (x, y, added),
    aten.mv: lambda x, y, *_: (x, y.unsqueeze(1), None),
    aten.addmv: lambda added, x, y: (x, y.unsqueeze(1), added),
    aten.addmv_: lambda added, x, y: (x, y.unsqueeze(1), added),
    aten.dot: lambda x, y, *_: (x.unsqueeze(0), y.unsqueeze(1), None),
    aten.vdot: lambda x, y, *_: (x.unsqueeze(0), y.unsqueeze(1), None),
    aten.addr: lambda added, x, y: (x.unsqueeze(1), y.unsqueeze(0), added),
    aten.addr_: lambda added, x, y: (x.unsqueeze(1), y.unsqueeze(0), added),
}
"""Matrix products -> both factors, with the axes of a matrix, and what is added."""


@cache
def _is_composite(func: Any) -> bool:
    return bool(func.has_kernel_for_dispatch_key(_COMPOSITE))
