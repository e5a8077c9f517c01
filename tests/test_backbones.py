"""The shipped backbones: published sizes and costs, first neurons, and learning."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import MembraneBlock, Network, build_network, first_neuron
from codingbench.conformance.images import Scene
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky, use_backend
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.schema import VALUE_CLASSES

PLAIN = (
    "vgg9",
    "sew_resnet18",
    "ms_resnet9[width=16]",
)  # the first neuron stands before the first convolution
IMAGENET = ("ms_resnet18[stem=imagenet]", "ms_resnet34")


def make(backbone: str, encoder: str = "direct", *, side: int = 32, num_steps: int = 2,
         num_classes: int = 10) -> Network:  # fmt: skip
    task = Task(num_steps, num_classes, 3, side, side, (0.5,) * 3, (0.25,) * 3)
    return build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), task, seed=0)


# --- size and cost ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone, encoder, num_classes, expected",
    [
        ("ms_resnet18[stem=imagenet]", "gac", 1000, 11_824_824),  # GAC's official code
        ("ms_resnet34", "gac", 1000, 21_932_984),
        ("sew_resnet18[stem=imagenet]", "direct", 1000, 11_689_512),  # torchvision's resnet18
        ("sew_resnet18", "direct", 10, 11_173_962),  # the ResNet-18 for CIFAR
        ("max_resnet18", "direct[spiking=false]", 10, 12_502_090),  # 12.50 M in the paper
        ("max_resnet18", "direct[spiking=false]", 100, 12_548_260),
        ("ms_resnet9", "direct", 10, 6_573_130),
        ("ms_resnet9", "direct", 100, 6_619_300),
        ("spikformer[blocks=4]", "direct", 10, 4_145_962),  # 4.15 M in the paper
        ("vgg9", "direct", 10, 5_938_880 + 2 * 1_152),  # Kim et al.'s code; normalisation
    ],
)
def test_published_numbers_of_parameters(
    backbone: str, encoder: str, num_classes: int, expected: int
) -> None:
    network = make(backbone, encoder, num_steps=4, num_classes=num_classes)
    assert sum(p.numel() for p in network.parameters()) == expected


def rows_of(network: Network, side: int) -> list[dict[str, object]]:
    """Count one random image in every layer with weights, normalised by its own statistics."""
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    num_steps = network.encoder.num_steps
    with torch.no_grad(), OperationCounter(network.train(), num_steps) as counter:
        network(images, torch.Generator().manual_seed(0))
    assert not counter.uncounted()
    return [row for row in counter.layer_rows() if row["kind"] == "synapse"]


def dense_operations(network: Network, side: int, *kinds: str) -> dict[str, int]:
    """Sum the dense operations of the last step over the layers with each kind in their names."""
    found = dict.fromkeys(kinds, 0)
    for row in rows_of(network, side):
        if row["step"] == network.encoder.num_steps:
            kind = next(kind for kind in kinds if kind in str(row["layer"]))
            found[kind] += sum(int(str(row[f"dense_{c}"])) for c in VALUE_CLASSES)
    return found


@pytest.mark.parametrize(
    "backbone, convolutions",
    [("ms_resnet18[stem=imagenet]", 1_676_279_808), ("ms_resnet34", 3_525_967_872)],
)
def test_ms_resnets_for_imagenet_cost_what_the_published_code_costs(
    backbone: str, convolutions: int
) -> None:
    network = make(backbone, "gac", side=224, num_steps=1, num_classes=1000)
    assert dense_operations(
        network, 224, "stem", "spatial", "temporal", "shortcut", "convs", "linear"
    ) == {
        "stem": 64 * 112**2 * 3 * 7**2,  # 118.0 M
        "spatial": 2 * 64 * 112**2 * 64 * 4**2,  # 1,644 M: GAC's gate
        "temporal": 2 * 2,  # of the mean and the maximum
        "shortcut": 32_112_640,
        "convs": convolutions,
        "linear": 512_000,
    }


def test_vgg9_and_sew_resnet18_cost_what_their_layers_say() -> None:
    assert dense_operations(make("vgg9"), 32, "stages", "hidden", "linear") == {
        "stages": 188_743_680,  # 4 x 37.7 M at the full width of a resolution, 2 x 18.9 M to widen
        "hidden": 256 * 4 * 4 * 1024,
        "linear": 1024 * 10,
    }
    assert dense_operations(make("sew_resnet18"), 32, "main", "shortcut", "linear") == {
        "main": 547_356_672,  # of a ResNet-18 on CIFAR
        "shortcut": 3 * 2_097_152,
        "linear": 5_120,
    }


def test_max_resnet18_has_and_costs_what_its_layers_say() -> None:
    """12.50 M parameters in the paper; without strides, 2.67 instead of 2.22 GMAC per step."""
    network = make("max_resnet18", "direct[spiking=false]")
    assert sum(p.numel() for p in network.parameters()) == (
        (3 * 64 + 64 * 128 + 5 * 128**2 + 128 * 256 + 5 * 256**2 + 256 * 512 + 3 * 512**2) * 9
        + (64 * 128 + 128 * 256 + 256 * 512)  # shortcuts
        + 2 * (64 + 7 * 128 + 7 * 256 + 5 * 512)  # normalisation
        + 513 * 10
    )
    first, same = 32**2 * 64 * 128 * 9, 32**2 * 128**2 * 9  # 16^2 256^2 9, 8^2 512^2 9, too
    assert dense_operations(network, 32, "stem", "convs", "shortcut", "linear") == {
        "stem": 0,  # at the first step alone
        "convs": first + 5 * same + (2 + 5) * same + (2 + 3) * same,
        "shortcut": 3 * first // 9,
        "linear": 5_120,
    }
    assert first + 17 * same + first // 3 + 5_120 == 2_667_582_464
    strided = dense_operations(make("ms_resnet18"), 32, "convs", "shortcut", "linear")
    assert sum(strided.values()) == 2_667_582_464 - 3 * same


@pytest.mark.parametrize("width, share", [(64, 1), (32, 4), (16, 16)])
def test_ms_resnet9_costs_five_large_convolutions_and_little_else(width: int, share: int) -> None:
    large = (
        32**2 * 64 * 128 * 9 // share
    )  # of three pooled layers and the first residual block, ...
    network = make(f"ms_resnet9[width={width}]")
    assert dense_operations(network, 32, "stem", "pooled", "residuals", "linear") == {
        "stem": 0,  # at the first step alone
        "pooled": 3 * large,
        "residuals": 2 * 16**2 * (2 * width) ** 2 * 9 + 2 * 4**2 * (8 * width) ** 2 * 9,
        "linear": 8 * width * 10,
    }
    assert large == 75_497_472 // share


def test_ms_resnet9_multiplies_in_its_last_layer_alone() -> None:
    last = [row for row in rows_of(make("ms_resnet9", "gac"), 32) if row["step"] == 2]
    classes = {str(row["layer"]): row["input_class"] for row in last}
    inside = {name: of for name, of in classes.items() if name.startswith("backbone")}
    assert len(inside) == 8
    assert [name for name, of in inside.items() if of != "binary"] == ["backbone.head.linear"]


@pytest.mark.parametrize("side, sides", [(28, [14, 7, 4]), (17, [9, 5, 3]), (1, [1, 1, 1])])
def test_ms_resnet9_rounds_odd_sizes_up(side: int, sides: list[int]) -> None:
    seen = list[int]()
    backbone = make("ms_resnet9[width=2]").backbone.eval()
    for index in range(3):
        layers = backbone.get_submodule(f"pooled.{index}")
        layers.register_forward_hook(lambda module, args, out: seen.append(out.shape[-1]))
    assert backbone(torch.ones(2, 1, 2, side, side)).shape == (2, 1, 10)
    assert seen == sides


@pytest.mark.parametrize(
    "backbone, expected",
    [
        ("vgg9", "b bb bbb bb"),
        ("vgg9[pooling=average]", "b lb lbb lb"),
        ("sew_resnet18", "bb lb" + 3 * " lbl lb" + " l"),  # main path, its shortcut; linear
    ],
)
def test_where_a_plain_stack_adds_and_where_it_multiplies(backbone: str, expected: str) -> None:
    rows = rows_of(make(backbone, "gac", side=16, num_steps=3), 16)
    last = [row for row in rows if row["step"] == 3 and "backbone" in str(row["layer"])]
    classes = {"binary": "b", "level": "l"}  # adds, multiplies
    found = [classes[str(row["input_class"])] for row in last]
    assert found == [*expected.replace(" ", "")]


# --- the first neuron ---------------------------------------------------------------------------


def test_spikes_pass_the_first_neuron_unchanged_and_none_at_threshold_1_at_first() -> None:
    spk = (torch.rand(8, 5, 40, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    assert torch.equal(first_neuron()(spk), spk)
    assert not MultiStepLeaky()(spk)[0].any()


def test_gated_spikes_pass_the_first_neuron_at_once_or_add_up() -> None:
    # .5 > .4; .3, then .15 + .3; .22, .33, .385, then .1925 + .22; .2 + .1 + ... never exceeds .4
    gated = torch.tensor([[0.5, 0.3, 0.22, 0.2]]).expand(4, 1, 4)
    assert first_neuron()(gated)[:, 0].T.tolist() == [
        [1, 1, 1, 1],
        [0, 1, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert not MultiStepLeaky()(gated).any()  # at threshold 1


@pytest.mark.parametrize("backbone", PLAIN)
def test_a_gate_that_has_learnt_nothing_leaves_direct_coding(backbone: str) -> None:
    """At T = 1, half of the initial weights switch off the only hidden unit for all images."""
    networks = [
        make(backbone, encoder, side=9, num_steps=1).train() for encoder in ("direct", "gac")
    ]
    nn.init.zeros_(networks[1].encoder.get_parameter("temporal.0.weight"))
    images = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    direct, gac = (network(images, torch.Generator()) for network in networks)
    assert torch.equal(gac, direct) and direct.std() > 0


@pytest.mark.parametrize("backbone", PLAIN)
@pytest.mark.parametrize("encoder", ["direct", "gac", "rate"])
def test_no_coding_is_cut_off_by_the_first_neuron(backbone: str, encoder: str) -> None:
    scene = Scene(3, 16, 16, num_steps=2)
    network = build_network(
        ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), scene.task(), seed=0
    ).train()
    seen: list[tuple[Tensor, Tensor]] = []
    names = dict(network.backbone.named_modules())
    first = names.get("first", names.get("neurons.0"))
    assert first is not None
    first.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    logits = network(scene.images(4), torch.Generator().manual_seed(0))
    ((given, spk),) = seen
    if encoder == "direct":
        assert torch.equal(spk, given)
    assert (spk.mean((1, 2, 3, 4)) > 0.01).all()  # at every step
    (logits * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)).sum().backward()
    for name, parameter in network.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


# --- sources ------------------------------------------------------------------------------------


def test_sew_resnet18_is_spikingjellys_with_our_neuron() -> None:
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.model import sew_resnet

    ours = make("sew_resnet18[stem=imagenet]", side=64, num_steps=3)
    theirs = sew_resnet.sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=MultiStepLeaky)
    functional.set_step_mode(theirs, "m")
    parameters = [*ours.encoder.stem.parameters(), *ours.backbone.parameters()]
    for target, source in zip(theirs.parameters(), parameters, strict=True):
        target.data.copy_(source.data)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = ours(images, torch.Generator())
        expected = theirs(((images - 0.5) / 0.25).expand(3, -1, -1, -1, -1))
    assert logits.std() > 0
    assert torch.equal(logits, expected)


def test_max_resnet18_is_spikingjellys() -> None:
    """Same logits and gradients: its neuron halves the input, which scales all numbers exactly."""
    from spikingjelly.activation_based.model import ms_resnet

    ours = make("max_resnet18", "direct[spiking=false]", side=19, num_steps=3).train()
    theirs = ms_resnet.max_resnet18(T=3, num_classes=10).train()
    parameters = [*ours.encoder.stem.parameters(), *ours.backbone.parameters()]
    for target, source in zip(theirs.parameters(), parameters, strict=True):
        target.data.copy_(source.data)
    images = torch.rand(2, 3, 19, 19, generator=torch.Generator().manual_seed(0))
    logits = ours(images, torch.Generator()).mean(0)
    expected = theirs((images - 0.5) / 0.25)
    assert logits.std() > 0
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    gradients = torch.autograd.grad((logits * weights).sum(), parameters)
    others = torch.autograd.grad((expected * weights).sum(), [*theirs.parameters()])
    for gradient, other in zip(gradients, others, strict=True):
        assert gradient.any()
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("threshold, rate", [(2.0, 0), (0.4, 1)])
def test_spikes_of_an_encoder_pass_the_first_neuron_of_max_resnet18_below_threshold_1(
    threshold: float, rate: float
) -> None:
    backbone = make(f"max_resnet18[first_threshold={threshold}]").backbone
    first = backbone.get_submodule("blocks.0.neurons.0")
    assert float(first(torch.ones(32, 1, 3)).mean()) == rate


class _Rectangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mem):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(mem)
        return (mem > 0.5).float()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (mem,) = ctx.saved_tensors
        return grad * ((mem > 0) & (mem < 1)).float()


@pytest.mark.parametrize("backend", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_the_neuron_for_imagenet_is_that_of_the_official_code(backend: str) -> None:
    """mem = x + mem / 4 (1 - spk), the spike detached, spk = mem > 1/2, rectangle of width 1."""
    cur = torch.randn(4, 3, 5, 20, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.linspace(-1, 1, cur.numel()).reshape(cur.shape)
    mem, spikes = torch.zeros_like(cur[0]), list[Tensor]()
    for x in cur:
        last = spikes[-1].detach() if spikes else torch.zeros_like(x)
        mem = x + mem * 0.25 * (1 - last)
        spikes.append(_Rectangle.apply(mem))
    expected = torch.stack(spikes)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), cur)
    neuron = make("ms_resnet34").backbone.make_neuron()
    with use_backend(backend):
        spk = neuron(cur)
        (grad,) = torch.autograd.grad((spk * weights).sum(), cur)
    assert 0 < spk.sum() < spk.numel() and torch.equal(spk, expected)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backbone", IMAGENET)
def test_initial_weights_for_imagenet(backbone: str) -> None:
    network = make(backbone)
    blocks = [m for m in network.backbone.modules() if isinstance(m, MembraneBlock)]
    last = {block.convs[-1].get_submodule("1") for block in blocks}
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 * len(blocks) + 4
    for norm in norms:
        assert set(norm.weight.tolist()) == ({0} if norm in last else {0.5})
    assert blocks[0].shortcut is not None and blocks[1].shortcut is None
    cur = torch.randn(2, 2, 64, 4, 4)
    assert torch.equal(blocks[1](cur), cur)  # at first a block is its shortcut
    for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        std = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert float(conv.weight.detach().std()) == pytest.approx(std, rel=0.05)


def test_ms_resnet18_without_brackets_is_the_form_for_cifar() -> None:
    assert BACKBONES.resolve("ms_resnet18[stem=cifar]").label == "ms_resnet18"
    backbone = make("ms_resnet18").backbone
    blocks = [m for m in backbone.modules() if isinstance(m, MembraneBlock)]
    channels = [len(block.convs[0].get_parameter("0.weight")) for block in blocks]
    assert channels == [128, 128, 128, 256, 256, 256, 512, 512]
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(set(norm.weight.tolist()) == {1} for norm in norms)
    cur = torch.randn(2, 1, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone.make_neuron()(cur), MultiStepLeaky(0.5, 1.0)(cur))


# --- refusals and learning ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone, side, num_steps, message",
    [
        ("vgg9", 7, 2, "images must be at least 8x8, got 7x7"),
        ("sew_resnet18", 8, 1, "at T = 1 images must be larger than 8x8, got 8x8: one position of"),
        ("sew_resnet18[stem=imagenet]", 32, 1, "larger than 32x32, got 32x32"),
        ("ms_resnet18[stem=imagenet]", 32, 1, "larger than 32x32, got 32x32"),
        ("ms_resnet34", 28, 1, "larger than 32x32, got 28x28"),
        ("max_resnet18[first_threshold=0]", 32, 2, "threshold must be positive, got 0"),
        ("ms_resnet9", 8, 1, "larger than 8x8, got 8x8"),
        ("ms_resnet9[width=0]", 32, 2, "width must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(
    backbone: str, side: int, num_steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(backbone, side=side, num_steps=num_steps)


@pytest.mark.parametrize(
    "backbone, side, num_steps",
    [
        ("vgg9", 8, 1),
        ("sew_resnet18", 9, 1),
        ("sew_resnet18", 8, 2),
        ("ms_resnet34", 33, 1),
        ("ms_resnet9", 9, 1),
        ("ms_resnet9", 2, 2),
    ],
)
def test_the_smallest_accepted_settings_train_on_a_single_image(
    backbone: str, side: int, num_steps: int
) -> None:
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    logits = make(backbone, side=side, num_steps=num_steps).train()(images, torch.Generator())
    assert logits.shape == (num_steps, 1, 10) and logits.isfinite().all()


@pytest.mark.parametrize(
    "backbone, encoder, num_iterations",
    [
        ("ms_resnet9[width=16]", "gac", 12),
        ("ms_resnet9[width=16]", "latency", 12),
        ("vgg9", "gac", 8),
        pytest.param("vgg9", "rate", 8, marks=pytest.mark.slow),
        pytest.param("vgg9[pooling=average]", "direct", 12, marks=pytest.mark.slow),
        pytest.param("sew_resnet18", "direct", 12, marks=pytest.mark.slow),
        ("ms_resnet18[stem=imagenet]", "direct", 12),
        pytest.param("ms_resnet34", "gac", 12, marks=pytest.mark.slow),
    ],
)
def test_eight_images_are_learnt(backbone: str, encoder: str, num_iterations: int) -> None:
    scene = Scene(3, 16, 16, num_steps=2)
    images, labels = scene.images(8), torch.arange(8)
    network = build_network(
        ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), scene.task(), seed=0
    ).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for iteration in range(num_iterations):
        logits = network(images, torch.Generator().manual_seed(iteration))
        loss = F.cross_entropy(logits.mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-2:]) < losses[0] / 2


def test_the_table_of_sizes_in_the_readme_is_counted() -> None:
    text = (Path(__file__).parents[1] / "backbones" / "README.md").read_text()
    rows = re.findall(r"^\| `(.+)` \| ([\d,]+) M \| ([\d.]+) M \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for name, operations, parameters in rows:
        network = make(name, "direct[spiking=false]")
        second = [row for row in rows_of(network, 32) if row["step"] == 2]
        dense = sum(int(str(row[f"dense_{kind}"])) for row in second for kind in VALUE_CLASSES)
        assert f"{dense / 1e6:,.0f}" == operations, name
        assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}" == parameters, name
