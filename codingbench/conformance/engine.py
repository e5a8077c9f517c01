"""Checks of how the engine runs a plug-in: in bf16, on a GPU, compiled, counted."""

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
from codingbench.conformance.check import Failed, Skipped, check
from codingbench.conformance.images import Images
from codingbench.conformance.independence import distance
from codingbench.conformance.learning import loss_of
from codingbench.conformance.subject import Subject, draws, global_seed
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Encoder
from codingbench.errors import one_line
from codingbench.neurons import MultiStepLeaky
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.schema import ELEMENT_COUNTS, VALUE_CLASSES
from codingbench.training.evaluation import autocast

COMPILING_S: Final = 120.0
"""Seconds that compiling may take before the check is given up."""

_FEW_SPIKES = 0.01  # relative: rounding may move a spike


@check(
    "bf16",
    "runs under autocast, finite",
    "cells with --precision bf16 would fail",
    needs=("runs", "dtype"),
)
def bf16(subject: Subject) -> str:
    """The network runs as ``--precision bf16`` runs it."""
    network, images = subject.network(), subject.images(3)
    with autocast(torch.device("cpu"), "bf16"):
        evaluated = subject.output(network, images)
        trained = subject.forward(network.train(), images, draws())
        logits = network.backbone(trained) if subject.kind == "encoder" else trained
    for out in (evaluated, trained):
        if out.dtype not in (torch.bfloat16, torch.float32):
            raise Failed(f"gives {str(out.dtype).removeprefix('torch.')}")
    loss_of(logits.float()).backward()
    grads = [p.grad for p in subject.module(network).parameters() if p.grad is not None]
    if not all(x.isfinite().all() for x in (evaluated, logits, *grads)):
        raise Failed("NaN or infinity")
    return str(evaluated.dtype).removeprefix("torch.")


@check(
    "counted",
    "every operation with weights",
    "its energy would leave something out",
    needs=("runs", "dtype"),
)
def counted(subject: Subject) -> str:
    """The counter knows all that the plug-in does."""
    counter = _count(subject.network(), [subject.images(3)])
    if lost := counter.uncounted():
        raise Failed(f"not counted: {', '.join(lost)}")
    return f"{len({row['layer'] for row in counter.layer_rows()})} layers"


@check(
    "cost per image",
    "the same in any batch",
    "its energy would depend on the batch size",
    needs=("runs", "dtype", "own image"),
)
def cost_per_image(subject: Subject) -> str:
    """Operations are those of the images, whatever the batches."""
    network, images = subject.network(), subject.images(5)
    at_once, in_two = (
        _count(network, batches).layer_rows() for batches in ([images], [images[:2], images[2:]])
    )
    module = subject.module(network)
    is_random = isinstance(module, Encoder) and not module.is_deterministic
    for name, columns in _COMPARED.items():
        if is_random and name.startswith("effective"):
            continue  # they follow the draws
        a, b = (sum(row[c] for row in rows for c in columns) for rows in (at_once, in_two))
        if abs(a - b) > _FEW_SPIKES * max(a, b):
            raise Failed(f"{name}: {a:,.0f} at once, {b:,.0f} in two batches")
    return "the same"


_COMPARED: Final[dict[str, list[str]]] = {
    # summed over the classes: the class is that of a layer's whole input, and the input of few
    # images may all be 0, which is binary
    "effective operations": [f"effective_{value_class}" for value_class in VALUE_CLASSES],
    "dense operations": [f"dense_{value_class}" for value_class in VALUE_CLASSES],
    **{name: [name] for name in ELEMENT_COUNTS},
}


def _count(network: Network, batches: list[Images]) -> OperationCounter:
    """What the network does on the batches."""
    num_steps = network.encoder.num_steps
    with torch.no_grad(), global_seed(0), OperationCounter(network, num_steps) as counter:
        for images in batches:
            network(images.clone(), draws())
    return counter


@check(
    "device",
    "runs where its images are",
    "on a GPU every cell would fail",
)
def device(subject: Subject) -> str:
    """It runs on CUDA; where there is none, on tensors that know their device and hold nothing."""
    network, images = subject.network().train(), subject.images(3)
    if torch.cuda.is_available():
        with torch.no_grad():
            network.cuda()(images.cuda(), torch.Generator("cuda"))
        return "ran on CUDA"
    with torch.no_grad():
        try:
            _trace(network.encoder.stem, images)
        except Exception as error:  # of this build of torch: the stem is not the plug-in's
            raise Skipped("no CUDA here, and this torch cannot trace for it") from error
        try:
            _trace(network, images, draws())
        except Exception as error:
            if _MIXED.search(str(error)):
                raise Failed(one_line(error)) from error
            raise Skipped(f"no CUDA here, and it cannot be traced: {one_line(error)}") from error
    return "traced for CUDA, which is not here"


_MIXED: Final = re.compile("(two different|same|two) device")  # in torch's words


def _trace(module: nn.Module, images: Images, *others: Any) -> None:
    """Run the module on tensors that are said to be on CUDA, and hold no values."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        own = [*module.named_parameters(), *module.named_buffers()]
        there = {name: mode.from_tensor(x.detach()).to("cuda") for name, x in own}
        functional_call(module, there, (mode.from_tensor(images).to("cuda"), *others))


@check(
    "compiled",
    "gives the same, or falls back",
    "long trainings, which are compiled, would fail or give other results than short ones",
)
def compiled(subject: Subject) -> str:
    """The engine's two ways of running neurons agree, forwards and backwards."""
    network = subject.network()
    neurons = [m for m in subject.module(network).modules() if isinstance(m, MultiStepLeaky)]
    if not any(neuron.is_fused and neuron.rule().is_elementwise for neuron in neurons):
        raise Skipped("it has no neuron that could be compiled")
    if backend_run("compiled") != "compiled":
        raise Skipped("compiling has failed before in this process")
    eager = _forth_and_back(subject, "eager")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ours = _within(COMPILING_S, lambda: _forth_and_back(subject, "compiled"))
    apart = max(distance(a, b) for a, b in zip(eager, ours, strict=True))
    if not apart <= _FEW_SPIKES:
        raise Failed(f"compiled it differs by {100 * apart:.2g} %")
    if backend_run("compiled") == "compiled":
        return f"compiled, the same to {max(apart, 1e-7):.0e}"
    reason = next((str(w.message) for w in told if "uncompiled" in str(w.message)), "no reason")
    if "CxxCompiler" in reason:
        raise Skipped("no C++ compiler here")
    return f"falls back: {reason}"


def _forth_and_back(subject: Subject, backend: str) -> list[Tensor]:
    """The result, and the gradients of all parameters."""
    network = subject.network().train()
    with use_backend(backend), global_seed(0):
        out = subject.forward(network, subject.images(3), draws())
        if out.requires_grad:
            loss_of(out).backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    return [out.detach(), *grads]


def _within(seconds: float, run: Callable[[], Any]) -> Any:
    """What ``run`` returns, if it does in time."""
    ended: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            ended.append(run())
        except BaseException as error:  # raised again by the caller
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not ended:
        raise Skipped(f"compiling took more than {seconds:.0f} s")
    return ended[0]
