"""Checks of how the engine runs a plug-in: in bf16, on a GPU, compiled, and counted."""

import re
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from codingbench.backbone import Network
from codingbench.cells.probe import generator_of, seeded
from codingbench.conformance.check import Failed, Skipped, Undecided, check
from codingbench.conformance.images import Images
from codingbench.conformance.independence import distance
from codingbench.conformance.learning import loss_of
from codingbench.conformance.plugin import PluginUnderTest
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Encoder
from codingbench.errors import one_line
from codingbench.neurons import MultiStepLeaky
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.schema import ELEMENT_COUNTS, VALUE_CLASSES
from codingbench.training.evaluation import autocast

COMPILING_S: Final = 120.0
"""Time limit for compiling in seconds, after which the check is skipped."""

_FEW_SPIKES = 0.01  # relative tolerance, because rounding can add or remove spikes


@check(
    "bf16",
    "runs under autocast to bfloat16, with finite results",
    "cells with --precision bf16 would fail",
    needs=("runs", "dtype"),
)
def bf16(tested: PluginUnderTest) -> str:
    """Run the network as ``--precision bf16`` does."""
    network, images = tested.network(), tested.images(3)
    with autocast(torch.device("cpu"), "bf16"):
        evaluated = tested.output(network, images)
        trained = tested.forward(network.train(), images, generator_of())
        logits = network.backbone(trained) if tested.kind == "encoder" else trained
    for out in (evaluated, trained):
        if out.dtype not in (torch.bfloat16, torch.float32):
            raise Failed(f"the result has dtype {str(out.dtype).removeprefix('torch.')}")
    loss_of(logits.float()).backward()
    grads = [p.grad for p in tested.module(network).parameters() if p.grad is not None]
    if not all(x.isfinite().all() for x in (evaluated, logits, *grads)):
        raise Failed("results or gradients contain NaN or infinity")
    return f"the result is {str(evaluated.dtype).removeprefix('torch.')}"


@check(
    "counted",
    "all operations with weights are counted",
    "its energy would be too low",
    needs=("runs", "dtype"),
)
def counted(tested: PluginUnderTest) -> str:
    """Count the operations of the network."""
    counter = _count(tested.network(), [tested.images(3)])
    if lost := counter.uncounted():
        raise Failed(f"not counted: {', '.join(lost)}")
    return f"{len({row['layer'] for row in counter.layer_rows()})} layers counted"


@check(
    "neurons",
    "its spiking neurons are recognised",
    "firing rate and energy would leave out neurons",
    needs=("runs", "dtype", "counted"),
)
def neurons(tested: PluginUnderTest) -> str:
    """Count the neurons of the plug-in, and name the modules that may be others."""
    network = tested.network()
    counter = _count(network, [tested.images(3)])
    prefix = f"{tested.kind}."
    if doubtful := counter.undecided(tested.kind):
        module = network.get_submodule(doubtful[0])
        where = doubtful[0].removeprefix(prefix)
        what = "its forward" if where == tested.kind else f"{where} ({type(module).__name__})"
        raise Undecided(
            f"cannot tell whether {what}{_and_others(len(doubtful) - 1)} is a neuron: put each "
            "neuron with its membrane into one module and decorate its class with "
            "@codingbench.neurons.spiking, or with @spiking(False) if it is none"
        )
    rows = [row for row in counter.layer_rows() if row["kind"] == "neuron"]
    return f"{len({r['layer'] for r in rows if r['layer'].startswith(prefix)})} layers of neurons"


def _and_others(number: int) -> str:
    return f" and {number} other modules" if number else ""


@check(
    "cost per image",
    "the operations per image do not depend on the batch",
    "its energy would depend on the batch size",
    needs=("runs", "dtype", "own image"),
)
def cost_per_image(tested: PluginUnderTest) -> str:
    """Count the operations of the same images in one batch and in two."""
    network, images = tested.network(), tested.images(5)
    at_once, in_two = (
        _count(network, batches).layer_rows() for batches in ([images], [images[:2], images[2:]])
    )
    module = tested.module(network)
    is_random = isinstance(module, Encoder) and not module.is_deterministic
    for name, columns in _COMPARED.items():
        if is_random and name.startswith("effective"):
            continue  # they depend on the random numbers
        a, b = (sum(row[c] for row in rows for c in columns) for rows in (at_once, in_two))
        if abs(a - b) > _FEW_SPIKES * max(a, b):
            raise Failed(f"{name}: {a:,.0f} in one batch, {b:,.0f} in two batches")
    return "the same in one batch and in two"


_COMPARED: Final[dict[str, list[str]]] = {
    # Summed over the value classes, because the class of a layer is that of its whole input: for
    # few images the input may be all 0, which is binary.
    "effective operations": [f"effective_{value_class}" for value_class in VALUE_CLASSES],
    "dense operations": [f"dense_{value_class}" for value_class in VALUE_CLASSES],
    **{name: [name] for name in ELEMENT_COUNTS},
}


def _count(network: Network, batches: list[Images]) -> OperationCounter:
    """Return the counts of a network on the batches."""
    num_steps = network.encoder.num_steps
    with torch.no_grad(), seeded(0), OperationCounter(network, num_steps) as counter:
        for images in batches:
            network(images.clone(), generator_of())
    return counter


@check(
    "device",
    "runs on the device of its images",
    "every cell would fail on a GPU",
)
def device(tested: PluginUnderTest) -> str:
    """Run the network on CUDA; without a GPU, on fake tensors that have a device but no values."""
    network, images = tested.network().train(), tested.images(3)
    if torch.cuda.is_available():
        with torch.no_grad():
            network.cuda()(images.cuda(), torch.Generator("cuda"))
        return "ran on CUDA"
    with torch.no_grad():
        try:
            _trace(network.encoder.stem, tested.stem_input(network, images))
        except Exception as error:  # a limit of this build of torch, not of the plug-in
            raise Skipped("there is no CUDA device, and torch cannot trace without one") from error
        try:
            _trace(network, images, generator_of())
        except Exception as error:
            if _MIXED.search(str(error)):
                raise Failed(one_line(error)) from error
            raise Skipped(
                f"there is no CUDA device, and tracing fails: {one_line(error)}"
            ) from error
    return "traced for CUDA, without a CUDA device"


_MIXED: Final = re.compile("(two different|same|two) device")  # parts of torch's error messages


def _trace(module: nn.Module, images: Images, *others: Any) -> None:
    """Run the module on fake CUDA tensors, which hold no values."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        own = [*module.named_parameters(), *module.named_buffers()]
        there = {name: mode.from_tensor(x.detach()).to("cuda") for name, x in own}
        functional_call(module, there, (mode.from_tensor(images).to("cuda"), *others))


@check(
    "compiled",
    "compiled neurons give the same results, or fall back to uncompiled ones",
    "long trainings, which are compiled, would fail or give other results than short ones",
)
def compiled(tested: PluginUnderTest) -> str:
    """Compare compiled and uncompiled neurons in the forward and the backward pass."""
    network = tested.network()
    neurons = [m for m in tested.module(network).modules() if isinstance(m, MultiStepLeaky)]
    if not any(neuron.is_fused and neuron.rule().is_elementwise for neuron in neurons):
        raise Skipped("it has no neurons that can be compiled")
    if backend_run("compiled") != "compiled":
        raise Skipped("compiling has already failed in this process")
    eager = _forward_and_backward(tested, "eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = _within(COMPILING_S, lambda: _forward_and_backward(tested, "compiled"))
    difference = max(distance(a, b) for a, b in zip(eager, compiled, strict=True))
    if not difference <= _FEW_SPIKES:
        raise Failed(f"compiled results differ by {100 * difference:.2g} %")
    if backend_run("compiled") == "compiled":
        return f"compiled, equal up to {max(difference, 1e-7):.0e}"
    reason = next(
        (str(w.message) for w in caught if "uncompiled" in str(w.message)), "unknown reason"
    )
    if "CxxCompiler" in reason:
        raise Skipped("there is no C++ compiler")
    return f"falls back: {reason}"


def _forward_and_backward(tested: PluginUnderTest, backend: str) -> list[Tensor]:
    """Return the result and the gradients of all parameters."""
    network = tested.network().train()
    with use_backend(backend), seeded(0):
        out = tested.forward(network, tested.images(3), generator_of())
        if out.requires_grad:
            loss_of(out).backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return [out.detach(), *grads]


def _within(seconds: float, run: Callable[[], Any]) -> Any:
    """Return the result of ``run``, or skip the check if it takes longer than ``seconds``."""
    results: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            results.append(run())
        except BaseException as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not results:
        raise Skipped(f"compiling took more than {seconds:.0f} s")
    return results[0]
