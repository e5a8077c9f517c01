"""The contract of backbones, for every registered one, and published numbers of parameters."""

import pytest
import torch

from codingbench.backbone import Network, build_network
from codingbench.conformance.examination import CHECKS, examine, plugin_under_test
from codingbench.encoder import Task
from codingbench.registry import BACKBONES, ENCODERS

EVERYDAY = ["runs", "steps", "stem", "no memory", "initial weights", "own image", "no future"]
EVERYDAY += ["gradients"]
every_backbone = pytest.mark.parametrize("backbone", BACKBONES.names())


def make(encoder: str, backbone: str, num_steps: int, num_classes: int, seed: int = 0) -> Network:
    task = Task(num_steps, num_classes, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    return build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), task, seed)


@pytest.mark.parametrize(
    "encoder, num_classes, expected",
    [
        ("direct", 10, 12_502_090),
        ("direct", 100, 12_548_260),
        ("gac", 10, 12_633_198),
        ("gac", 100, 12_679_368),
    ],
)
def test_ms_resnet18_has_the_published_number_of_parameters(
    encoder: str, num_classes: int, expected: int
) -> None:
    network = make(encoder, "ms_resnet18", 6, num_classes)
    assert sum(p.numel() for p in network.parameters()) == expected


@every_backbone
def test_every_backbone_keeps_the_contract(backbone: str) -> None:
    report = examine(plugin_under_test(backbone), [c for c in CHECKS if c.name in EVERYDAY])
    assert [f.check.name for f in report.of("passed")] == EVERYDAY, report.of("failed")


@pytest.mark.slow  # compiles, and a large backbone takes seconds
@every_backbone
def test_every_backbone_keeps_all_of_the_contract(backbone: str) -> None:
    report = examine(plugin_under_test(backbone))
    assert {f.check.name: f.found for f in report.findings if f.outcome != "passed"} == {}


@every_backbone
def test_initial_weights_are_the_same_for_every_coding_and_t_but_not_for_every_seed(
    backbone: str,
) -> None:
    def weights(encoder: str, num_steps: int, seed: int) -> dict[str, torch.Tensor]:
        network = make(encoder, backbone, num_steps, 10, seed)
        stem = {f"stem.{n}": w for n, w in network.encoder.stem.state_dict().items()}
        return dict(network.backbone.state_dict()) | stem

    reference = weights("direct", 4, 0)
    for encoder, num_steps in (("gac", 4), ("rate", 2)):
        for name, value in weights(encoder, num_steps, 0).items():
            assert torch.equal(value, reference[name]), name
    assert not torch.equal(weights("direct", 4, 1)["stem.0.weight"], reference["stem.0.weight"])


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make("gac", "csnn", 4, 10)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "backbone, size, message",
    [
        ("csnn[width=0]", 32, "width must be at least 1, got 0"),
        ("csnn", 6, "images must be at least 8x8, got 6x6"),
    ],
)
def test_csnn_refuses_sizes_that_it_cannot_handle(backbone: str, size: int, message: str) -> None:
    task = Task(2, 10, 1, size, size, (0.5,), (0.25,))
    with pytest.raises(ValueError, match=message):
        BACKBONES.resolve(backbone).build(task)
