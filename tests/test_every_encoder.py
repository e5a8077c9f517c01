"""What the contract asks of an encoder, for every one that is registered, on real images."""

from typing import Any

import pytest
import torch
from torch import Tensor

from codingbench.backbone import build_network
from codingbench.building import task_of
from codingbench.datasets import find, get_info, load
from codingbench.encoder import Code, Encoder
from codingbench.registry import BACKBONES, ENCODERS

INFO = get_info("fashion_mini")
CODINGS = [
    *ENCODERS.names(),
    "direct[spiking=false]",
    "latency[scale=log]",
    "rate[gain=0.5]",
    "gac[kernel_size=3]",
]

every_coding = pytest.mark.parametrize("coding", CODINGS)


@pytest.fixture(scope="module")
def images() -> Tensor:
    source = find("fashion_mini", None)
    assert source is not None
    return load(source, "test", 12).images.float() / 255


def make(coding: str, num_steps: int) -> tuple[Encoder, dict[str, Tensor]]:
    """The encoder as a network has it, in evaluation, and the code it last emitted."""
    plugins = ENCODERS.resolve(coding), BACKBONES.resolve("csnn")
    encoder = build_network(*plugins, task_of(INFO, num_steps), seed=0).encoder.eval()
    seen: dict[str, Tensor] = {}

    def keep(module: Any, args: Any, output: Tensor) -> None:
        seen["code"] = output.detach()

    next(m for m in encoder.modules() if isinstance(m, Code)).register_forward_hook(keep)
    return encoder, seen


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_coding
@pytest.mark.parametrize("num_steps", range(1, 9))
def test_any_number_of_steps_gives_finite_currents_of_the_stems_shape(
    coding: str, num_steps: int, images: Tensor
) -> None:
    encoder, _ = make(coding, num_steps)
    out = encoder(images, draws())
    assert out.shape == (num_steps, 12, 16, 28, 28)
    assert out.isfinite().all() and out.dtype == torch.float32


@every_coding
def test_black_white_and_noise_give_finite_currents(coding: str) -> None:
    encoder, _ = make(coding, 4)
    extremes = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28), torch.rand(1, 28, 28)])
    assert encoder(extremes, draws()).isfinite().all()


@every_coding
def test_the_code_is_of_the_declared_kind(coding: str, images: Tensor) -> None:
    encoder, seen = make(coding, 4)
    encoder(images, draws())
    values = seen["code"].unique()
    if encoder.emits == "binary":
        assert values.tolist() == [0, 1]
    elif encoder.emits == "signed":
        assert values.tolist() == [-1, 0, 1]
    else:
        assert len(values) > 100
        has_silence = bool((seen["code"] == 0).float().mean() > 0.01)
        assert has_silence == (encoder.emits == "graded")


@every_coding
def test_the_same_generator_gives_the_same_code_and_only_chance_needs_it(
    coding: str, images: Tensor
) -> None:
    encoder, _ = make(coding, 4)
    first = encoder(images, draws(1))
    assert torch.equal(first, encoder(images, draws(1)))  # also: no state is left behind
    assert torch.equal(first, encoder(images, draws(2))) == encoder.is_deterministic


@every_coding
def test_an_images_code_does_not_depend_on_its_batch(coding: str, images: Tensor) -> None:
    encoder, _ = make(coding, 4)
    if not encoder.is_deterministic:
        return  # the draws of a batch differ from those of its parts, the distribution does not
    whole = encoder(images, draws())
    torch.testing.assert_close(whole[:, 3:4], encoder(images[3:4], draws()))


@every_coding
def test_every_parameter_gets_a_gradient(coding: str, images: Tensor) -> None:
    encoder, _ = make(coding, 4)
    encoder.train()
    encoder(images, draws()).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_coding
def test_a_wrong_shape_is_refused_with_both_shapes(coding: str) -> None:
    encoder, _ = make(coding, 4)
    with pytest.raises(ValueError, match=r"must emit shape \(4, 2, 1, 5, 5\), got \(3, 2, 1, 5, 5"):
        encoder._checked(torch.zeros(3, 2, 1, 5, 5), (2, 1, 5, 5))
