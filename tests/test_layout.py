"""Every coding and every backbone keep the channels last in memory, for colour and grey images.

That is how they run on a GPU, and on a CPU in bfloat16. The test switches it on in double
precision, in which another order of sums changes no spike, and compares with contiguous memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.backbone import Network, build_network, move_network
from codingbench.encoder import Code, Task
from codingbench.neurons import MultiStepLeaky, layout
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.training.evaluation import autocast

SIDE = 12
COLOUR = Task(2, 10, 3, SIDE, SIDE, (0.5,) * 3, (0.25,) * 3)
GREY = Task(2, 10, 1, SIDE, SIDE, (0.5,), (0.25,))
FORMS = (
    *BACKBONES.names(),
    "vgg9[pooling=average]",
    "sew_resnet18[stem=imagenet]",
    "ms_resnet18[stem=imagenet]",
)
EVERYDAY = {("csnn", name) for name in ENCODERS.names()} | {(name, "gac") for name in FORMS}
CASES = [
    pytest.param(
        task,
        backbone,
        encoder,
        id=f"{backbone}-{encoder}-{'grey' if task is GREY else 'colour'}",
        marks=() if (backbone, encoder) in EVERYDAY else pytest.mark.thorough,
    )
    for task in (COLOUR, GREY)
    for backbone in FORMS
    for encoder in ENCODERS.names()
]


def is_channels_last(x: Tensor) -> bool:
    """Return whether every step of [B, C, H, W] or [T, B, C, H, W] has its channels last."""
    images = x if x.dim() == 4 else x[0]
    return images.is_contiguous(memory_format=torch.channels_last)


class Copies(TorchDispatchMode):
    """The copies of feature maps into another order of memory, by shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten._to_copy):
            x = args[0]
            if x.dim() >= 4 and x.numel() > 1 and _order(x) != _order(out):
                self.found.append(tuple(x.shape))
        return out


def _order(x: Tensor) -> list[int]:
    """Return the dimensions by stride; those of one number or of repeated ones have no place."""
    placed = [d for d in range(x.dim()) if x.shape[d] > 1 and x.stride(d) > 0]
    return sorted(placed, key=x.stride)


@contextmanager
def watched(network: Network) -> Iterator[list[str]]:
    """Collect the names of layers with an input or output that is not channels-last.

    The code itself is left out: its memory is put in order where it enters the stem.
    """
    wrong: list[str] = []
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, Code) or ([*module.children()] and not is_neuron(module)):
            continue

        def look(module: nn.Module, args: Any, out: Tensor, name: str = name) -> None:
            for kind, x in (("input", args[0]), ("output", out)):
                if x.dim() in (4, 5) and not is_channels_last(x):
                    wrong.append(f"{kind} of {name}, {tuple(x.shape)} {x.stride()}")

        handles.append(module.register_forward_hook(look))
    yield wrong
    for handle in handles:
        handle.remove()


def is_neuron(module: nn.Module) -> bool:
    return isinstance(module, MultiStepLeaky)


@pytest.mark.parametrize("task, backbone, encoder", CASES)
def test_no_layer_changes_the_order_of_memory(
    task: Task, backbone: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve(backbone)
    network = build_network(*plugins, task, seed=0).double()
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(3, task.channels, SIDE, SIDE, generator=draws).double()

    def logits() -> Tensor:
        found: Tensor = network(images, torch.Generator().manual_seed(2))
        return found.detach()

    expected = logits()
    monkeypatch.setattr(layout, "keeps_channels_last", lambda *where: True)
    move_network(network, torch.device("cpu"), "fp32")
    with watched(network) as wrong, Copies() as copies:
        found = logits()
    assert not wrong
    code = task.channels * network.encoder.channels
    features = [
        shape for shape in copies.found if not {task.channels, code} & {shape[-3], shape[-1]}
    ]
    if backbone == "spikformer":
        # Products of heads [T, B, 8, ., .] need each head in one piece, and their sums
        # [T, B, rows, columns, channels] are put in order again.
        features = [shape for shape in features if shape[2] != 8 and shape[2:4] != (3, 3)]
    assert not features  # images and codes of pixels may be copied, before the stem
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.std() > 0


@pytest.mark.parametrize("task", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_a_cpu_convolves_channels_last_in_bfloat16_only(
    encoder: str, precision: str, task: Task
) -> None:
    """In single precision, oneDNN's convolutions in this order may write outside their memory."""
    cpu, inputs = torch.device("cpu"), list[Tensor]()
    network = build_network(ENCODERS.resolve(encoder), BACKBONES.resolve("csnn"), task, seed=0)
    for layer in move_network(network, cpu, precision).modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, args, out: inputs.extend((args[0], layer.weight, out))
            )
    images = torch.rand(3, task.channels, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with autocast(cpu, precision):
        logits = network(images, torch.Generator().manual_seed(2)).float()
    logits.square().mean().backward()
    assert len(inputs) == 3 * 7
    is_bf16 = precision == "bf16"
    for x in [*inputs, *(p.grad for p in network.parameters() if p.dim() == 4)]:
        assert x is not None
        assert is_channels_last(x) if is_bf16 else x.is_contiguous()
