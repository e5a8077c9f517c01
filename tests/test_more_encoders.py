"""Codings of later versions: values computed by hand, an independent reference, and their errors.

Those with channels of their own are in ``test_code_channels.py``.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import build_network
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.energy import CONVENTIONS, TECHNOLOGIES
from codingbench.inspection.remarks import remarks
from codingbench.inspection.session import inspect_codings
from codingbench.registry import BACKBONES, ENCODERS
from tests.test_encoders import draws, encoder, pixels, train_of

# --- dta --------------------------------------------------------------------------------------


def published_gate(y: Tensor, coding: Any, num_steps: int) -> Tensor:
    """Compute DTA's gate from its formulas, on y repeated over time, [B, T, C, H, W]."""
    x = torch.stack([y] * num_steps, dim=1)
    batch, steps, channels, height, width = x.shape
    of = dict(coding.named_parameters())

    mean = x.mean((3, 4))
    over_steps = F.conv1d(mean, of["over_channels.weight"], padding="same")
    over_channels = F.conv1d(mean.transpose(1, 2), of["over_steps.weight"], padding="same")
    a_t = torch.sigmoid(over_steps)[..., None, None] * of["alpha"]
    a_c = torch.sigmoid(over_channels).transpose(1, 2)[..., None, None] * of["beta"]
    txa = (x + a_t) * (x + a_c)

    wide = x.reshape(batch, steps * channels, height, width)

    def convolve(name: str, signal: Tensor, **options: Any) -> Tensor:
        return F.conv2d(signal, of[f"{name}.weight"], of[f"{name}.bias"], **options)

    u = F.gelu(convolve("first", wide))
    local = convolve("local.0", u, padding=2, groups=len(u[0]))
    local = convolve("local.2", convolve("local.1", local, dilation=3, groups=len(u[0])))
    squeezed = F.relu(u.mean((2, 3)) @ of["mlp.0.weight"].T) @ of["mlp.2.weight"].T
    tna = wide + convolve("last", squeezed[:, :, None, None] * local * u)
    return torch.sigmoid(tna.reshape(x.shape) * txa).transpose(0, 1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("num_steps", [1, 2, 6])
def test_dta_equals_its_formulas_on_the_image_repeated_over_time(num_steps: int) -> None:
    coding = encoder("dta", num_steps, channels=8)
    with torch.no_grad():
        coding.alpha.fill_(0.7)
        coding.beta.fill_(-1.3)
    y = torch.randn(2, 8, 6, 5, generator=draws(1)).mul(2).requires_grad_()
    expected = encoder("direct", num_steps, 8).encode(y) * published_gate(y, coding, num_steps)
    code = coding.encode(y)
    torch.testing.assert_close(code, expected, rtol=1e-4, atol=1e-5)
    inputs = [y, *coding.parameters()]
    weights = torch.randn(code.shape, generator=draws(2))
    ours = torch.autograd.grad((code * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("num_steps", "channels", "hidden"), [(1, 16, 4), (4, 16, 16), (6, 64, 16), (1, 2, 1)]
)
def test_dta_has_the_parameters_of_its_formula(num_steps: int, channels: int, hidden: int) -> None:
    wide = num_steps * channels
    exchange = 3 * num_steps**2 + 6 * channels**2 + 2
    pointwise = 3 * (wide**2 + wide)
    depthwise = 25 * wide + wide + wide + wide
    expected = exchange + pointwise + depthwise + 2 * wide * hidden
    coding = encoder("dta", num_steps, channels)
    assert sum(p.numel() for p in coding.parameters()) == expected


def test_dta_at_six_steps_has_nearly_half_a_million_parameters_behind_64_channels() -> None:
    coding = encoder("dta", 6, 64)
    # 3 * 36 + 6 * 4,096 + 2;  3 * (147,456 + 384);  28 * 384;  2 * 384 * 16
    parts = 24_686 + 443_520 + 10_752 + 12_288
    assert sum(p.numel() for p in coding.parameters()) == parts == 491_246


# --- integer ----------------------------------------------------------------------------------


def test_integer_sends_whole_numbers_of_spikes_and_keeps_what_is_left() -> None:
    # 1.4: v = 1.4, .6 * -> c = 1; left .4, / 4 = .1 -> v = 1.5 -> 2 (half to even); left -.5 ...
    code = encoder("integer", 3, 1).encode(pixels(-1.0, 0.4, 1.4, 2.7, 9.0))
    assert train_of(code) == [[0, 0, 0], [0, 0, 1], [1, 2, 1], [3, 3, 3], [4, 4, 4]]


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_integer_equals_its_recurrence_neuron_by_neuron(levels: int) -> None:
    y = torch.randn(2, 2, 4, 4, generator=draws(3), dtype=torch.float64).mul(2)
    code = encoder(f"integer[levels={levels},beta=0.5,threshold=0.75]", 5, 2).encode(y)
    for cur, train in zip(y.flatten().tolist(), code.flatten(1).T.tolist(), strict=True):
        mem = 0.0
        for c in train:
            mem = 0.5 * mem + cur
            assert c == round(min(max(mem / 0.75, 0.0), levels))
            mem -= 0.75 * c


def test_the_derivative_of_an_integer_spike_is_one_inside_the_clip_and_zero_outside() -> None:
    y = pixels(-0.1, 0.2, 3.9, 4.1).requires_grad_()
    encoder("integer", 1, 1).encode(y).sum().backward()
    assert y.grad is not None and y.grad.flatten().tolist() == [0, 1, 1, 0]


class _Reads(nn.Module):
    """An integer code that a convolution reads directly, and one that reads its mean."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.neuron = encoder(f"integer[levels={levels}]", 2, 3).neuron
        self.read = nn.Conv2d(3, 5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(self.neuron(x.expand(2, *x.shape)).flatten(0, 1))
        return out


def test_a_synapse_that_reads_c_is_billed_c_accumulates_over_the_sub_steps() -> None:
    torch.manual_seed(0)
    network, x = _Reads(levels=4), torch.randn(6, 3, 4, 4, generator=draws(4)).mul(2)
    c = network.neuron(x.expand(2, *x.shape))
    assert c.max() > 1
    with torch.no_grad(), OperationCounter(network, 2) as counter:
        network(x)
    rows = {(row["layer"], row["step"]): row for row in counter.layer_rows()}
    for step in (1, 2):
        read, neuron = rows["read", step], rows["neuron", step]
        spikes = int(c[step - 1].sum())
        assert read["effective_binary"] == 5 * spikes
        assert read["effective_level"] == read["effective_real"] == 0
        assert read["dense_binary"] == 4 * 5 * x.numel()  # 4 sub-steps
        assert read["input_values"] == 4 * x.numel()
        assert read["paper_acs"] == pytest.approx(5 * spikes)
        assert neuron["neuron_updates"] == 4 * x.numel()


def test_c_spikes_cost_under_every_convention_what_c_binary_steps_cost() -> None:
    """The bill of the layer behind the code, against one that runs the sub-steps one by one."""
    torch.manual_seed(0)
    network, x = _Reads(levels=3), torch.randn(2, 3, 4, 4, generator=draws(5)).mul(2)
    c = network.neuron(x.expand(2, *x.shape))
    unrolled = torch.cat([(c > sub).float() for sub in range(3)])  # 6 steps [B, 3, 4, 4]

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = network.read

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.read(unrolled.flatten(0, 1))
            return out

    bills = []
    for module, steps in ((network, 2), (Unrolled(), 6)):
        with torch.no_grad(), OperationCounter(module, steps) as counter:
            module(x)
        rows = [row for row in counter.layer_rows() if row["layer"] == "read"]
        chip = TECHNOLOGIES["45nm-fp32"]
        bills.append(
            {
                name: sum(convention.picojoules(row, chip) for row in rows)
                for name, convention in CONVENTIONS.items()
            }
        )
    assert bills[0] == pytest.approx(bills[1])


@pytest.mark.parametrize("backbone", ["csnn[width=4]", "vgg9"])
def test_the_layers_that_read_an_integer_code_add_weights_in_networks(backbone: str) -> None:
    task = Task(2, 10, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    network = build_network(
        ENCODERS.resolve("integer"), BACKBONES.resolve(backbone), task, seed=0
    ).eval()
    codes: list[Tensor] = []
    network.encoder.code.register_forward_hook(lambda module, args, code: codes.append(code))
    images = torch.rand(3, 3, 32, 32, generator=draws(6)) * 4
    with torch.no_grad(), OperationCounter(network, 2) as counter:
        network(images, draws())
    assert codes[0].max() > 1
    readers = [
        row
        for row in counter.layer_rows()
        if row["input_values"] == 4 * codes[0][0].numel() and row["kind"] == "synapse"
    ]
    if backbone.startswith("csnn"):  # the shortcut reads the code; vgg9's first layer is a neuron
        assert {row["layer"] for row in readers} == {"backbone.blocks.0.shortcut.0"}
        assert {row["input_class"] for row in readers} == {"binary"}
    assert counter.uncounted() == []


# --- ternary ----------------------------------------------------------------------------------


def test_ternary_spikes_have_the_sign_of_the_membrane_that_leaves_the_threshold() -> None:
    # beta .5: +-.6 -> .6, .9, 1.05 at the third step; 1.1 at every step
    code = encoder("ternary", 4, 1).encode(pixels(-1.1, -0.6, 0.4, 0.6, 1.1))
    assert train_of(code) == [[-1] * 4, [0, 0, -1, 0], [0] * 4, [0, 0, 1, 0], [1] * 4]


def test_ternary_equals_its_recurrence_neuron_by_neuron() -> None:
    y = torch.randn(2, 3, 4, 4, generator=draws(7), dtype=torch.float64)
    code = encoder("ternary[beta=0.9,threshold=0.8]", 6).encode(y)
    beta, threshold = float(np.float32(0.9)), float(np.float32(0.8))
    for cur, train in zip(y.flatten().tolist(), code.flatten(1).T.tolist(), strict=True):
        mem = 0.0
        for spk in train:
            mem = beta * mem + cur
            expected = math.copysign(1, mem) if abs(mem) > threshold else 0
            assert spk == expected
            mem = 0.0 if expected else mem


def test_a_learned_amplitude_scales_the_currents_and_not_the_code() -> None:
    coding = encoder("ternary[learned_amplitude=true]", 3).eval()
    images = torch.rand(2, 3, 8, 8, generator=draws(8)) * 4
    plain = encoder("ternary", 3).eval()(images, draws())
    with torch.no_grad():
        coding.amplitude.fill_(0.25)
        assert torch.equal(coding(images, draws()), 0.25 * plain)
    coding(images, draws()).sum().backward()
    assert coding.amplitude.grad.item() == plain.sum().item()


# --- bitplane ---------------------------------------------------------------------------------


def test_bitplane_sends_the_most_significant_bits_then_a_latency() -> None:
    # 255, 128, 64, 1, 0 of 255; then round(2 (1 - x)) = 0, 1, 1 (1.498), 2, never
    values = [level / 255 for level in (255, 128, 64, 1, 0)]
    spk = encoder("bitplane[then=latency]", 5, 1).spikes(pixels(*values), draws())
    expected = [[1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0] * 5]
    assert train_of(spk) == expected


@pytest.mark.parametrize("num_steps", [1, 3, 8, 11])
def test_eight_bit_planes_are_the_bits_that_numpy_unpacks(num_steps: int) -> None:
    levels = np.arange(256, dtype=np.uint8)
    images = torch.tensor(levels / 255, dtype=torch.float32).reshape(1, 1, 16, 16)
    spk = encoder("bitplane[planes=8]", num_steps, 1).spikes(images, draws())
    bits = np.unpackbits(levels[:, None], axis=1).T  # most significant first
    count = min(num_steps, 8)
    assert np.array_equal(spk[:count].reshape(count, -1).numpy(), bits[:count])


def test_after_its_planes_bitplane_spikes_at_the_rate_of_the_pixel() -> None:
    values, copies = (0.0, 0.1, 0.35, 1.0), 4_000
    images = pixels(*values).expand(copies, -1, -1, -1)
    rates = encoder("bitplane", 6, 1).spikes(images, draws(9))[2:].mean((0, 1, 2, 3)).tolist()
    for value, rate in zip(values, rates, strict=True):
        assert rate == pytest.approx(value, abs=4 * (value * (1 - value) / 16_000) ** 0.5 + 1e-9)


def test_bitplane_is_random_only_where_rate_steps_are_left() -> None:
    randoms = {
        text: not encoder(text, 4).is_deterministic
        for text in ("bitplane", "bitplane[planes=4]", "bitplane[then=latency]")
    }
    assert randoms == {
        "bitplane": True,
        "bitplane[planes=4]": False,
        "bitplane[then=latency]": False,
    }


# --- learned_phase ----------------------------------------------------------------------------


def test_learned_phase_is_a_wave_per_channel_through_a_sigmoid() -> None:
    coding = encoder("learned_phase[spiking=false]", 4, 2)
    with torch.no_grad():
        coding.phase.copy_(torch.tensor([0.0, math.pi / 2]))
    code = coding.encode(torch.full((1, 2, 1, 1), 2.0))[:, 0, :, 0, 0]
    low, high = 0.1192029, 0.8807971  # sigmoid(-2), sigmoid(2)
    expected = [[0.5, high], [high, 0.5], [0.5, low], [low, 0.5]]  # sin and cos of t pi / 2
    torch.testing.assert_close(code, torch.tensor(expected))


def test_learned_phase_spikes_are_the_neurons_answer_to_its_formula() -> None:
    coding = encoder("learned_phase[period=3]", 5, 4)
    y = torch.randn(2, 4, 4, 4, generator=draws(10)).mul(3)
    phases = [2 * math.pi * (c + 0.5) / 4 for c in range(4)]
    assert coding.phase.tolist() == pytest.approx(phases)
    cur = torch.stack(
        [
            torch.stack(
                [
                    torch.sigmoid(y[:, c] * math.sin(2 * math.pi * t / 3 + phases[c]))
                    for c in range(4)
                ],
                dim=1,
            )
            for t in range(5)
        ]
    )
    code = coding.encode(y)
    assert 0 < code[0].mean() < 1
    assert (code != coding.neuron(2 * cur)).float().mean() < 0.01  # rounding at the threshold


def test_every_phase_is_learned() -> None:
    coding = encoder("learned_phase", 4)
    y = torch.randn(2, 3, 8, 8, generator=draws(11)).mul(3)
    coding.encode(y).mul(torch.randn(4, 2, 3, 8, 8, generator=draws(12))).sum().backward()
    assert (coding.phase.grad != 0).all()


# --- sigma_delta ------------------------------------------------------------------------------


def test_sigma_delta_sends_a_still_image_once() -> None:
    spk = encoder("sigma_delta", 3, 1).spikes(pixels(0.0, 0.04, 0.24, 0.26, 1.0), draws())
    assert train_of(spk) == [[0, 0, 0], [0, 0, 0], [2, 0, 0], [3, 0, 0], [10, 0, 0]]


def test_inspect_says_that_sigma_delta_sends_a_still_image_once() -> None:
    (found,) = inspect_codings(("sigma_delta",), "fashion_mini", 4, samples=20).observations
    said = "a still image is sent once, at step 1; the other steps of 4 emit nothing"
    assert said in remarks(found)


def test_sigma_delta_follows_frames_within_a_level() -> None:
    frames = torch.rand(12, 2, 1, 4, 4, generator=draws(13)).cumsum(0) / 6 - 0.5
    spk = encoder("sigma_delta[threshold=0.25]", 12, 1).of_frames(frames)
    assert (spk < 0).any() or (frames[1:] >= frames[:-1]).all()
    assert ((0.25 * spk.cumsum(0) - frames).abs() <= 0.25).all()
    assert torch.equal(spk, spk.round())


def test_sigma_delta_equals_its_recurrence_pixel_by_pixel() -> None:
    frames = torch.rand(7, 1, 1, 3, 3, generator=draws(14), dtype=torch.float64)
    spk = encoder("sigma_delta[threshold=0.2]", 7, 1).of_frames(frames)
    trains = zip(frames.flatten(1).T.tolist(), spk.flatten(1).T.tolist(), strict=True)
    for values, train in trains:
        known = 0.0
        for value, sent in zip(values, train, strict=True):
            error = value - known
            expected = round(error / 0.2) if abs(error) >= 0.2 else 0
            assert sent == expected
            known += 0.2 * sent


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("integer[levels=0]", "levels must be at least 1, got 0"),
        ("integer[beta=2]", r"beta must be in \[0, 1\], got 2.0"),
        ("ternary[threshold=0]", "threshold must be positive, got 0.0"),
        ("ternary[beta=-1]", r"beta must be in \[0, 1\], got -1.0"),
        ("bitplane[planes=9]", r"planes must be in 1..8, got 9"),
        ("learned_phase[period=-1]", "period must be at least 0, got -1.0"),
        ("learned_phase[gain=0]", "gain must be positive, got 0.0"),
        ("sigma_delta[threshold=1.5]", r"threshold must be in \(0, 1\], got 1.5"),
        ("onoff[contrast=0]", "contrast must be positive, got 0.0"),
        ("onoff[surround=1]", "expected 0 < center < surround, got 1.0 and 1.0"),
        ("population[cells=2]", "cells must be at least 3, got 2"),
        ("population[overlap=0]", "overlap must be positive, got 0.0"),
        ("population[least=0.9]", r"least must be in \(0, 0.755\], .* got 0.9"),
    ],
)
def test_impossible_parameters_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(text, 4)
