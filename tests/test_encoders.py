"""Each shipped coding: values computed by hand, an independent reference, and its errors."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from snntorch import spikegen
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.encoder import Encoder, FeatureEncoder, PixelEncoder, Setting, Task, build_encoder
from codingbench.neurons import MultiStepLeaky
from codingbench.registry import ENCODERS, Plugin


def setting(num_steps: int, channels: int = 3, stem: nn.Module | None = None) -> Setting:
    task = Task(num_steps, 10, channels, 8, 8, (0.0,) * channels, (1.0,) * channels)
    return Setting(task, stem or nn.Identity(), channels, MultiStepLeaky)


def encoder(text: str, num_steps: int, channels: int = 3) -> Any:
    torch.manual_seed(1)
    return ENCODERS.resolve(text).build(setting(num_steps, channels))


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def train_of(spk: Tensor) -> list[list[float]]:
    """Convert spikes [T, 1, 1, 1, pixel] to one list over time per pixel."""
    rows: list[list[float]] = spk[:, 0, 0, 0].T.tolist()
    return rows


# --- direct -----------------------------------------------------------------------------------


def test_direct_is_the_neurons_answer_to_the_constant_feature() -> None:
    # silent up to .5; .6 every third step; .9 every second; 1.1 at every step
    code = encoder("direct", 4, 1).encode(pixels(0.5, 0.6, 0.9, 1.1))
    assert train_of(code) == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]


def test_direct_without_neurons_repeats_the_feature() -> None:
    features = torch.randn(2, 3, 8, 8)
    code = encoder("direct[spiking=false]", 3).encode(features)
    assert torch.equal(code, torch.stack([features] * 3))


def test_direct_standardises_before_the_stem() -> None:
    task = Task(2, 10, 1, 4, 4, mean=(0.25,), std=(0.5,))
    make = ENCODERS.resolve("direct[spiking=false]").build
    code = make(Setting(task, nn.Identity(), 1, MultiStepLeaky))(torch.ones(1, 1, 4, 4), draws())
    assert code.unique().tolist() == [1.5]


def test_direct_has_the_spikes_of_snntorch_on_conv_bn_features() -> None:
    task = Task(6, 10, 3, 8, 8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5))
    encode = ENCODERS.resolve("direct").build(Setting(task, stem, 5, MultiStepLeaky))
    images = torch.rand(4, 3, 8, 8, generator=draws(9))
    mean, std = torch.tensor(task.mean), torch.tensor(task.std)
    cur = stem((images - mean[:, None, None]) / std[:, None, None])
    neuron = snntorch.Leaky(beta=0.5, threshold=1, reset_mechanism="zero", reset_delay=False)
    mem, spikes = torch.zeros_like(cur), []
    for _ in range(6):
        spk, mem = neuron(cur, mem)
        spikes.append(spk)
    assert 0 < spikes[-1].sum() < spikes[-1].numel()
    assert torch.equal(encode(images, draws()), torch.stack(spikes))


# --- rate -------------------------------------------------------------------------------------


def test_rate_spikes_as_often_as_pixel_times_gain() -> None:
    values, num_steps, copies = (0.0, 0.1, 0.35, 0.6, 1.0), 10, 4_000
    images = pixels(*values).expand(copies, -1, -1, -1)
    for gain in (1.0, 0.5, 2.0):
        spk = encoder(f"rate[gain={gain}]", num_steps, 1).spikes(images, draws(3))
        n = num_steps * copies
        for value, rate in zip(values, spk.mean((0, 1, 2, 3)).tolist(), strict=True):
            p = min(1.0, gain * value)
            assert rate == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5 + 1e-9)


def test_rate_has_the_distribution_of_snntorch() -> None:
    images = torch.rand(1, 1, 8, 8, generator=draws(5))
    num_steps = 4_000
    torch.manual_seed(0)
    theirs = spikegen.rate(images, num_steps=num_steps).mean(0)
    ours = encoder("rate", num_steps, 1).spikes(images, draws(6)).mean(0)
    assert (ours - theirs).abs().max() < 5 * (2 * 0.25 / num_steps) ** 0.5


def test_rate_draws_from_the_given_generator_alone() -> None:
    images, encode = torch.rand(2, 3, 8, 8), encoder("rate", 3)
    first = encode.spikes(images, draws(7))
    torch.manual_seed(99)
    assert torch.equal(first, encode.spikes(images, draws(7)))
    assert not torch.equal(first, encode.spikes(images, draws(8)))
    steps_differ = (first[0] != first[1]).any() and (first[1] != first[2]).any()
    assert steps_differ


# --- latency ----------------------------------------------------------------------------------


def test_latency_brighter_pixels_spike_earlier() -> None:
    spk = encoder("latency", 5, 1).spikes(pixels(1.0, 0.7, 0.3, 0.02, 0.0), draws())
    # round(4 (1 - x)) = 0, 1, 3, 4; the black pixel is silent
    assert train_of(spk) == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]


def test_log_latency_by_hand_collapses_towards_the_first_step() -> None:
    # T = 4: a = e^3 - 1 = 19.0855; round(3 - ln(a x + 1)) of .4 is .84 -> 1, of .02 is 2.68 -> 3
    spk = encoder("latency[scale=log]", 4, 1).spikes(pixels(1.0, 0.7, 0.4, 0.1, 0.02), draws())
    assert [train.index(1) for train in train_of(spk)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("num_steps", [2, 4, 5, 16])
def test_linear_latency_has_the_spikes_of_snntorch(num_steps: int) -> None:
    images = torch.rand(3, 1, 8, 8, generator=draws(1))
    theirs = spikegen.latency(
        images, num_steps=num_steps, threshold=0.01, linear=True, normalize=True, clip=True
    )
    assert torch.equal(encoder("latency", num_steps, 1).spikes(images, draws()), theirs)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 9])
def test_log_latency_equals_its_formula_pixel_by_pixel(num_steps: int) -> None:
    values = torch.linspace(0.01, 1, 200).tolist()
    spk = encoder("latency[scale=log]", num_steps, 1).spikes(pixels(*values), draws())
    last = num_steps - 1
    for value, train in zip(values, train_of(spk), strict=True):
        fire_at = round(last - math.log((math.exp(last) - 1) * value + 1))
        assert train.index(1) == fire_at and sum(train) == 1


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_latency_spikes_once_per_pixel_unless_dark(scale: str, num_steps: int) -> None:
    images = torch.rand(4, 3, 8, 8, generator=draws(2))
    spk = encoder(f"latency[scale={scale},threshold=0.2]", num_steps).spikes(images, draws())
    assert torch.equal(spk.sum(0), (images >= 0.2).float())


def test_exponential_latency_spikes_when_a_decaying_threshold_reaches_the_pixel() -> None:
    # thresholds 1, .607, .368, .223 at tau = 2
    coding = encoder("latency[scale=exponential,tau=2]", 4, 1)
    spk = coding.spikes(pixels(1.0, 0.7, 0.4, 0.25, 0.2, 0.0), draws())
    expected = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0] * 4, [0] * 4]
    assert train_of(spk) == expected


@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_exponential_latency_equals_a_threshold_that_is_lowered_step_by_step(
    num_steps: int,
) -> None:
    images = torch.rand(2, 3, 8, 8, generator=draws(13))
    spk = encoder("latency[scale=exponential,tau=1.5]", num_steps).spikes(images, draws())
    waiting = images >= 0.01
    for t in range(num_steps):
        fires = waiting & (images >= math.exp(-t / 1.5))
        assert torch.equal(spk[t].bool(), fires)
        waiting &= ~fires


@pytest.mark.parametrize("scale", ["linear", "log", "exponential"])
def test_sustained_latency_spikes_from_the_first_spike_on(scale: str) -> None:
    images = torch.rand(2, 3, 8, 8, generator=draws(14))
    once, on = (
        encoder(f"latency[scale={scale},sustained={on}]", 5).spikes(images, draws())
        for on in ("false", "true")
    )
    assert torch.equal(on, once.cumsum(0))


@pytest.mark.parametrize(
    ("scale", "worth"),
    [
        ("linear", [1, 2 / 3, 1 / 3, 0]),
        ("log", [1, 0.33476, 0.09003, 0]),  # (e^(3 - t) - 1) / (e^3 - 1)
        ("exponential", [1, 0.36788, 0.13534, 0.04979]),
    ],
)
def test_a_weighted_latency_spike_is_worth_the_intensity_of_its_time(
    scale: str, worth: list[float]
) -> None:
    images = torch.rand(2, 3, 8, 8, generator=draws(15))
    weighted, plain = (
        encoder(f"latency[scale={scale},weighted={is_weighted}]", 4).eval()(images, draws())
        for is_weighted in ("true", "false")
    )  # the stem is the identity
    expected = plain * torch.tensor(worth).reshape(-1, 1, 1, 1, 1)
    torch.testing.assert_close(weighted, expected, atol=1e-5, rtol=0)


def test_at_one_step_a_weighted_spike_is_worth_one() -> None:
    for scale in ("linear", "log", "exponential"):
        coding = encoder(f"latency[scale={scale},weighted=true]", 1, 1)
        assert coding(pixels(1.0), draws()).item() == 1


# --- learned_time -----------------------------------------------------------------------------


def test_learned_time_begins_as_direct_coding() -> None:
    y = torch.randn(2, 3, 8, 8, generator=draws(16)).mul(2)
    assert torch.equal(encoder("learned_time", 4).encode(y), encoder("direct", 4).encode(y))


def test_a_learned_course_makes_patterns_that_no_constant_current_can() -> None:
    coding = encoder("learned_time", 3, 2)
    with torch.no_grad():
        coding.course[:, 0, :, 0, 0] = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    code = coding.encode(torch.ones(1, 2, 1, 1))[:, 0, :, 0, 0]
    assert code.T.tolist() == [
        [1, 0, 0],
        [0, 1, 0],
    ]  # a constant current causes repeated or later spikes


def test_every_number_of_the_course_is_learned() -> None:
    coding = encoder("learned_time", 4)
    y = torch.randn(2, 3, 8, 8, generator=draws(17)).mul(2)
    coding.encode(y).mul(torch.randn(4, 2, 3, 8, 8, generator=draws(18))).sum().backward()
    assert coding.course.shape == (4, 1, 3, 1, 1) and (coding.course.grad != 0).all()


# --- gac --------------------------------------------------------------------------------------


def official_gate(y: Tensor, encode: Any, num_steps: int) -> Tensor:
    """Compute the published formula on repeated features [B, T, C, H, W] in functional torch."""
    repeated = y.unsqueeze(1).repeat(1, num_steps, 1, 1, 1)
    w1, w2 = (layer.weight[:, :, None, None, None] for layer in encode.temporal[::2])
    ta = sum(
        F.conv3d(F.relu(F.conv3d(pool(repeated, 1), w1)), w2)
        for pool in (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)
    )
    k1, k2 = encode.spatial[1].weight, encode.spatial[4].weight
    flat = repeated.flatten(0, 1)
    sca = F.conv2d(F.relu(F.conv2d(flat, k1, padding="same")), k2, padding="same")
    return torch.sigmoid(ta * sca.reshape(repeated.shape)).transpose(0, 1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("options", ["", "[kernel_size=3]", "[channel_reduction=2,reduction=1]"])
@pytest.mark.parametrize("num_steps", [2, 4, 6])
def test_gac_equals_the_official_formula(num_steps: int, options: str) -> None:
    encode = encoder(f"gac{options}", num_steps, channels=6)
    y = torch.randn(3, 6, 8, 8, generator=draws(4)).mul(2).requires_grad_()
    spikes = MultiStepLeaky()(torch.stack([y] * num_steps))
    expected = spikes * official_gate(y, encode, num_steps)
    code = encode.encode(y)
    torch.testing.assert_close(code, expected, rtol=1e-5, atol=1e-5)
    assert code[code > 0].min() > 0 and code.max() < 1
    inputs = [y, *encode.parameters()]
    weights = torch.randn(code.shape, generator=draws(5))
    ours = torch.autograd.grad((code * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps, weights", [(1, 2), (2, 4), (4, 16), (6, 36)])
def test_gac_parameters_as_published(num_steps: int, weights: int) -> None:
    """131,072 + {4, 16, 36} for T = {2, 4, 6} at 64 channels; hidden width 1 at T = 1."""
    encode = encoder("gac", num_steps, channels=64)
    assert sum(p.numel() for p in encode.parameters()) == 131_072 + weights


def test_gac_spikes_where_direct_spikes() -> None:
    y = torch.randn(2, 4, 8, 8, generator=draws(6)).mul(2)
    gated = encoder("gac", 4, channels=4).encode(y)
    assert torch.equal(gated != 0, encoder("direct", 4, channels=4).encode(y) != 0)


# --- control arms of gac ----------------------------------------------------------------------


def control(arm: str, num_steps: int, channels: int = 4) -> Any:
    return encoder(f"gac_control[arm={arm}]", num_steps, channels)


def attentions(y: Tensor, encode: Any) -> tuple[Tensor, Tensor]:
    """Compute TA [T, B, 1, 1, 1] and SCA [B, C, H, W] of gac in functional torch."""
    w1, w2 = (layer.weight for layer in encode.temporal[::2])
    num_steps = len(w2)
    pooled = y.flatten(1).mean(1), y.flatten(1).max(1).values
    copies = (p[:, None].repeat(1, num_steps) for p in pooled)
    mean, largest = (F.linear(F.relu(F.linear(p, w1)), w2) for p in copies)
    ta = mean + largest
    k1, k2 = encode.spatial[1].weight, encode.spatial[4].weight
    sca = F.conv2d(F.pad(F.relu(F.conv2d(F.pad(y, (1, 2, 1, 2)), k1)), (1, 2, 1, 2)), k2)
    return ta.T[:, :, None, None, None], sca


def test_each_arm_of_gac_is_its_formula() -> None:
    y = torch.randn(3, 4, 8, 8, generator=draws(19)).mul(2)
    gac, spk = encoder("gac", 4, 4), encoder("direct", 4, 4).encode(y)
    ta, sca = attentions(y, gac)
    torch.testing.assert_close(gac.encode(y), spk * torch.sigmoid(ta * sca))
    w = torch.tensor([0.5, -1.0, 2.0, 0.0]).reshape(4, 1, 1, 1, 1)
    expected = {
        "temporal": torch.sigmoid(ta).expand(spk.shape),
        "spatial": torch.sigmoid(sca).expand(spk.shape),
        "vector": torch.sigmoid(w).expand(spk.shape),
        "vector_spatial": torch.sigmoid(w * sca),
        "half": torch.full(spk.shape, 0.5),
    }
    for arm, gate in expected.items():
        coding = control(arm, 4)
        if hasattr(coding, "vector"):
            coding.vector.data = w.flatten()
        torch.testing.assert_close(coding.encode(y), spk * gate, msg=arm)
    torch.testing.assert_close(
        control("stem", 4).encode(y), encoder("direct", 4, 4).encode(y + sca)
    )


@pytest.mark.parametrize(
    ("arm", "parameters"),
    [
        ("temporal", 16),  # 2 T floor(T / 2)
        ("spatial", 131_072),  # 2 x 64 x 64 x 4 x 4
        ("vector", 4),
        ("vector_spatial", 131_076),
        ("half", 0),
        ("stem", 131_072),
    ],
)
def test_an_arm_has_the_parameters_of_what_is_left(arm: str, parameters: int) -> None:
    assert sum(p.numel() for p in control(arm, 4, 64).parameters()) == parameters


# --- phase ------------------------------------------------------------------------------------


def test_phase_spikes_are_the_binary_digits() -> None:
    # .8125 = .1101 in binary; 1 does not fit into four digits and sets all of them
    spk = encoder("phase", 4, 1).spikes(pixels(0.8125, 0.5, 0.0, 1.0), draws())
    assert train_of(spk) == [[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("num_steps", [1, 4, 8])
def test_phase_has_the_spikes_of_spikingjelly(num_steps: int) -> None:
    from spikingjelly.activation_based.encoding import WeightedPhaseEncoder

    x = torch.rand(5, 3, 8, 8, generator=draws(7)) * (1 - 2.0**-num_steps)
    theirs = WeightedPhaseEncoder(num_steps)
    spk = torch.stack([theirs(x) for _ in range(num_steps)])
    assert torch.equal(encoder("phase", num_steps).spikes(x, draws()), spk)


def test_phase_leaves_the_weights_to_the_receiver() -> None:
    x = torch.rand(2, 3, 8, 8, generator=draws(8))
    weighted, plain = (
        encoder(text, 4).eval()(x, draws()) for text in ("phase", "phase[weighted=false]")
    )  # the stem is the identity
    assert set(plain.unique().tolist()) == {0, 1}
    worth = torch.tensor([1, 0.5, 0.25, 0.125]).reshape(-1, 1, 1, 1, 1)
    assert torch.equal(weighted, plain * worth)
    assert ((weighted.sum(0) / 2 - x).abs() <= 2.0**-4).all()  # the sum of the digits


# --- burst ------------------------------------------------------------------------------------


def test_bright_pixels_burst_longer_and_faster() -> None:
    # N = 5 of 6 steps: spikes 5, 5, 3, 1, 0; intervals 1, 6 - 4.5 -> 2, 6 - 2.5 -> 4, 6
    spk = encoder("burst", 6, 1).spikes(pixels(1.0, 0.9, 0.5, 0.1, 0.0), draws())
    assert train_of(spk) == [
        [1, 1, 1, 1, 1, 0],
        [1, 0, 1, 0, 1, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(("num_steps", "most", "shortest"), [(8, 5, 1), (10, 3, 2), (2, 4, 3)])
def test_burst_equals_its_formula_pixel_by_pixel(num_steps: int, most: int, shortest: int) -> None:
    levels = [level / 16 for level in range(17)]
    coding = encoder(f"burst[most_spikes={most},shortest={shortest}]", num_steps, 1)
    longest = max(num_steps, shortest)
    for x, row in zip(levels, train_of(coding.spikes(pixels(*levels), draws())), strict=True):
        interval = math.ceil(longest - (longest - shortest) * x)
        due = [k * interval for k in range(math.ceil(most * x))]
        assert row == [float(step in due) for step in range(num_steps)], x


# --- signed rate ------------------------------------------------------------------------------


def signed_rate(num_steps: int) -> Any:
    task = Task(num_steps, 10, 1, 1, 4, mean=(0.5,), std=(0.25,))
    make = ENCODERS.resolve("signed_rate").build
    return make(Setting(task, nn.Identity(), 1, MultiStepLeaky))


def test_signed_rate_spikes_by_the_distance_from_the_mean_with_its_sign() -> None:
    # z = -2, -1, 0, 1: probabilities 1, .5, 0, .5
    n = 4000
    spk = signed_rate(n).spikes(pixels(0.0, 0.25, 0.5, 0.75), draws(9))[:, 0, 0, 0]
    assert (spk[:, 0] == -1).all() and (spk[:, 2] == 0).all()
    assert set(spk[:, 1].tolist()) == {-1, 0} and set(spk[:, 3].tolist()) == {0, 1}
    bound = 4 * (0.25 / n) ** 0.5  # four binomial standard deviations
    assert spk.mean(0).tolist() == pytest.approx([-1, -0.5, 0, 0.5], abs=bound)


def test_signed_rate_has_the_distribution_of_snntorch() -> None:
    x, n = pixels(0.1, 0.3, 0.6, 0.9), 4000
    ours = signed_rate(n).spikes(x, draws(10)).mean(0)
    z = (x - 0.5) / 0.25
    torch.manual_seed(11)
    theirs = spikegen.rate((0.5 * z.abs()).clamp(max=1), num_steps=n).mean(0) * z.sign()
    assert torch.allclose(ours, theirs, atol=2**0.5 * 4 * (0.25 / n) ** 0.5)


# --- delta ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("background", "spikes"),
    [
        # from black: 5, 2.5, 1 and 0.95 thresholds
        (0.0, [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]),
        # from grey: +2.5, 0, -1.5 and -1.55 thresholds
        (0.5, [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]]),
    ],
)
def test_delta_spikes_until_the_pixel_is_reached(
    background: float, spikes: list[list[float]]
) -> None:
    coding = encoder(f"delta[background={background}]", 5, 1)
    assert train_of(coding.spikes(pixels(1.0, 0.5, 0.2, 0.19), draws())) == spikes


def test_delta_has_the_spikes_of_snntorch_on_the_staircase_that_it_follows() -> None:
    levels, threshold = torch.arange(0, 256) / 255, 0.15
    spk = encoder(f"delta[threshold={threshold}]", 4, 1).spikes(pixels(*levels.tolist()), draws())
    y = threshold * spk.cumsum(0)[:, 0, 0, 0]
    staircase = torch.cat([torch.zeros(1, 256), y])
    theirs = spikegen.delta(staircase, threshold=threshold - 1e-6, off_spike=True)[1:]
    assert torch.equal(theirs, spk[:, 0, 0, 0])
    reached = (levels - y[-1]).abs() < threshold
    assert (reached | (spk[:, 0, 0, 0].sum(0) == 4)).all()  # or four steps were not enough


def delta_by_fractions(x: Fraction, threshold: str, background: str, num_steps: int) -> list[int]:
    """The recurrence of the class's docstring in exact arithmetic."""
    y, size, spk = Fraction(background), Fraction(threshold), []
    for _ in range(num_steps):
        change = x - y
        spk.append((change > 0) - (change < 0) if abs(change) >= size else 0)
        y += size * spk[-1]
    return spk


LEVELS = [Fraction(k, 255) for k in range(256)]
FLOATS = [
    *torch.rand(300, generator=draws(12)).tolist(),
    *(float(np.nextafter(np.float32(0.1 * n), np.float32(to))) for n in range(11) for to in (0, 1)),
]


@pytest.mark.parametrize("background", ["0.0", "0.2", "0.25", "0.4", "0.5", "0.7", "1.0"])
@pytest.mark.parametrize("threshold", ["0.05", "0.1", "0.15", "0.2", "0.3", "0.00392157", "1.0"])
def test_delta_is_its_formula_in_exact_arithmetic(threshold: str, background: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).float().div(255)
    for num_steps in (1, 4, 8, 21):
        coding = encoder(f"delta[threshold={threshold},background={background}]", num_steps, 1)
        meant = LEVELS + [Fraction(x) for x in FLOATS if x not in levels]
        values = [*levels.tolist(), *(x for x in FLOATS if x not in levels)]
        expected = [delta_by_fractions(x, threshold, background, num_steps) for x in meant]
        assert train_of(coding.spikes(pixels(*values), draws())) == expected


def test_delta_codes_grey_levels_just_below_a_threshold_as_they_are() -> None:
    # 25 / 255 is 0.98 thresholds of 0.1, and 51 / 255 is 2 of them
    coding = encoder("delta[threshold=0.1]", 8, 1)
    counts = coding.spikes(pixels(*(k / 255 for k in (25, 26, 51, 76, 127, 178))), draws()).sum(0)
    assert counts.flatten().tolist() == [0, 1, 2, 2, 4, 6]


# --- lowpass ----------------------------------------------------------------------------------


def wave(cycles: int) -> Tensor:
    """A wave along an axis of 8 pixels, between 0 and 1."""
    row = 0.5 + 0.5 * torch.cos(2 * math.pi * cycles * torch.arange(8) / 8)
    return row.expand(1, 1, 8, 8)


def test_a_wave_is_there_as_long_as_the_radius_reaches_its_frequency() -> None:
    # radii .5, .375, .25, .125; waves of frequency 1/8, 2/8 and 3/8 about a mean of .5
    coding = encoder("lowpass[first=0.5,last=0.125]", 4, 1)
    for cycles, steps in ((1, 4), (2, 3), (3, 2)):
        code = coding.spikes(wave(cycles), draws())
        expected = torch.cat([wave(cycles)] * steps + [torch.full((1, 1, 8, 8), 0.5)] * (4 - steps))
        torch.testing.assert_close(code[:, 0], expected, atol=1e-6, rtol=0)


def test_lowpass_equals_a_disk_in_the_whole_fourier_plane() -> None:
    x = torch.rand(2, 3, 8, 8, generator=draws(12))
    code = encoder("lowpass", 3).spikes(x, draws())
    plane = torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3))
    distance = torch.cartesian_prod(torch.arange(-4.0, 4), torch.arange(-4.0, 4)).norm(dim=1)
    for t, radius in enumerate((0.5, 0.40625, 0.3125)):
        disk = (distance / 8 <= radius).reshape(8, 8)
        low = torch.fft.ifft2(torch.fft.ifftshift(plane * disk, dim=(2, 3))).real
        torch.testing.assert_close(code[t], low, atol=1e-6, rtol=0)


# --- published_step -----------------------------------------------------------------------------


def published_step(code: str, num_steps: int, pixels: str = "published") -> Any:
    """Build it for grey images of mean 1/2 and standard deviation 1/4: z = 4 x - 2."""
    task = Task(num_steps, 10, 1, 1, 4, mean=(0.5,), std=(0.25,))
    make = ENCODERS.resolve(f"published_step[code={code},pixels={pixels}]").build
    return make(Setting(task, nn.Identity(), 1, MultiStepLeaky))


def test_published_rate_never_or_always_spikes_outside_one_standard_deviation() -> None:
    # z = -2, -1, 0: silent; z = 1/2: a fair coin; z = 1, 2: at every step
    n = 4000
    spk = published_step("rate", n).spikes(pixels(0.0, 0.25, 0.5, 0.625, 0.75, 1.0), draws(13))
    rates = spk[:, 0, 0, 0].mean(0).tolist()
    assert rates[:3] == [0, 0, 0] and rates[4:] == [1, 1]
    assert rates[3] == pytest.approx(0.5, abs=4 * (0.25 / n) ** 0.5)


def test_published_ttfs_is_graded_and_silent_for_dark_and_for_the_brightest_pixels() -> None:
    # z = 2; 1, 3/4, 1/2, 1/4; 0, -1
    x = pixels(1.0, 0.75, 0.6875, 0.625, 0.5625, 0.5, 0.25)
    trains = train_of(published_step("ttfs", 4).spikes(x, draws()))
    assert trains == [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 1 / 2, 0, 0],
        [0, 0, pytest.approx(1 / 3), 0],
        [0, 0, 0, 1 / 4],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_published_phase_is_graded_silent_for_white_and_wraps_negative_values() -> None:
    # z = 2 and 1 are 512 and 256; 3/4 is 192 and -1/4 the same in eight bits; 1/16 is 16
    x = pixels(1.0, 0.75, 0.6875, 0.4375, 0.515625)
    assert train_of(published_step("phase", 4).spikes(x, draws())) == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 1 / 2, 0, 0],
        [1, 1 / 2, 0, 0],
        [0, 0, 0, 1 / 8],
    ]


def test_published_phase_repeats_its_eight_digits() -> None:
    (train,) = train_of(published_step("phase", 18).spikes(pixels(0.6875), draws()))
    assert train == [1, 1 / 2, *[0] * 6, 1, 1 / 2, *[0] * 6, 1, 1 / 2]


def test_published_codes_of_pixels_that_are_not_standardised_have_the_other_faults_alone() -> None:
    x = pixels(1.0, 0.5, 0.25, 0.0)
    ttfs = train_of(published_step("ttfs", 4, "unit").spikes(x, draws()))
    phase = train_of(published_step("phase", 4, "unit").spikes(x, draws()))
    assert ttfs == [[1, 0, 0, 0], [0, 0, pytest.approx(1 / 3), 0], [0, 0, 0, 1 / 4], [0] * 4]
    assert phase == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1 / 2, 0, 0], [0, 0, 0, 0]]  # white is silent
    n = 4000
    rates = published_step("rate", n, "unit").spikes(x, draws(14)).mean(0).flatten().tolist()
    assert rates == pytest.approx([1, 0.5, 0.25, 0], abs=4 * (0.25 / n) ** 0.5)


@pytest.mark.parametrize("code", ["ttfs", "phase"])
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_published_codes_equal_their_description_pixel_by_pixel(code: str, num_steps: int) -> None:
    def ttfs(z: float, t: int) -> float:
        is_due = num_steps - t - 1 < num_steps * z <= num_steps - t
        return 1 / (t + 1) if is_due else 0.0

    def phase(z: float, t: int) -> float:
        low_byte = int(z * 256) % 256  # int() rounds towards 0
        return int(f"{low_byte:08b}"[t % 8]) * math.pow(2, -(t % 8))

    levels = [level / 64 for level in range(65)]
    spk = published_step(code, num_steps).spikes(pixels(*levels), draws())
    expected = [
        [{"ttfs": ttfs, "phase": phase}[code](4 * x - 2, t) for t in range(num_steps)]
        for x in levels
    ]
    torch.testing.assert_close(torch.tensor(train_of(spk)), torch.tensor(expected))


def test_published_pixels_are_standardised_by_the_values_of_steps_configuration() -> None:
    """The data set's own values are others: 0.2023, 0.1994, 0.2010 for CIFAR-10."""
    task = Task(4, 10, 3, 2, 2, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))

    def statistics(spec: str) -> list[list[float]]:
        setting = Setting(task, nn.Identity(), 3, MultiStepLeaky)
        coding = ENCODERS.resolve(spec).build(setting)
        return [coding.mean.flatten().tolist(), coding.std.flatten().tolist()]

    step = [[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]]
    assert statistics("published_step") == [pytest.approx(values) for values in step]
    own = [pytest.approx(task.mean), pytest.approx(task.std)]
    assert statistics("published_step[pixels=standardised]") == own
    assert statistics("published_step[pixels=unit]") == [[0, 0, 0], [1, 1, 1]]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("rate[gain=0]", "gain must be positive, got 0.0"),
        ("latency[threshold=1]", r"threshold must be in \[0, 1\), got 1.0"),
        ("latency[threshold=-0.1]", r"threshold must be in \[0, 1\), got -0.1"),
        ("latency[scale=exponential,tau=0]", "tau must be positive, got 0.0"),
        ("burst[shortest=0]", "most_spikes and shortest must be at least 1, got 5 and 0"),
        ("signed_rate[gain=-1]", "gain must be positive, got -1.0"),
        ("delta[threshold=0]", r"threshold must be in \(0, 1\], got 0.0"),
        ("delta[background=2]", r"background must be in \[0, 1\], got 2.0"),
        ("lowpass[last=0.6]", "expected 0 < last <= first <= 1, got 0.6 and 0.5"),
        ("gac[kernel_size=0]", "kernel_size and reduction must be at least 1, got 0 and 2"),
        ("gac[reduction=0]", "kernel_size and reduction must be at least 1, got 4 and 0"),
        ("gac[channel_reduction=9]", r"channel_reduction must be in 1..3, .* got 9"),
    ],
)
def test_impossible_parameters_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(text, 4)


# --- slips in new encoders ------------------------------------------------------------------------


def built(cls: type[Encoder], num_steps: int = 4) -> Encoder:
    return build_encoder(Plugin("mine", cls, (), ""), setting(num_steps)).eval()


class Undeclared(PixelEncoder):
    """Has no ``emits``."""


class Misdeclared(PixelEncoder):
    emits: Any = "spikes"


class Uninitialised(PixelEncoder):
    emits: Any = "binary"

    def __init__(self, setting: Setting) -> None:
        self.level = 0.5


class ReadsTooEarly(PixelEncoder):
    emits: Any = "binary"

    def __init__(self, setting: Setting) -> None:
        self.last = self.num_steps - 1


class AssignsTooEarly(FeatureEncoder):
    emits: Any = "binary"

    def __init__(self, setting: Setting) -> None:
        self.neuron = setting.make_neuron()


class WeighsThreeSteps(PixelEncoder):
    emits: Any = "binary"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.weigh([1.0, 0.5, 0.25])


INITIALISE = "must first call super().__init__(setting)"


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Undeclared, "Undeclared must declare emits: one of binary, signed, graded, real"),
        (
            Misdeclared,
            "Misdeclared must declare emits: one of binary, signed, graded, real, got 'spikes'",
        ),
        (Uninitialised, f"the constructor of Uninitialised {INITIALISE}"),
        (ReadsTooEarly, f"the constructor of ReadsTooEarly {INITIALISE}"),
        (AssignsTooEarly, f"the constructor of AssignsTooEarly {INITIALISE}"),
        (
            WeighsThreeSteps,
            "weigh() of WeighsThreeSteps needs one number per step: expected 4, got 3",
        ),
    ],
)
def test_an_incomplete_encoder_is_refused_when_it_is_built(
    cls: type[Encoder], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        built(cls)
    assert str(caught.value) == message


def test_other_errors_of_a_constructor_are_not_hidden() -> None:
    class Misspells(PixelEncoder):
        emits: Any = "binary"

        def __init__(self, setting: Setting) -> None:
            super().__init__(setting)
            self.last = self.num_step

    with pytest.raises(AttributeError, match="no attribute 'num_step'"):
        built(Misspells)


class WithoutSpikes(PixelEncoder):
    emits: Any = "binary"


class WithoutEncode(FeatureEncoder):
    emits: Any = "binary"


class WithoutForward(Encoder):
    emits: Any = "binary"


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (WithoutSpikes, "WithoutSpikes must define spikes(images, generator)"),
        (WithoutEncode, "WithoutEncode must define encode(features)"),
        (
            WithoutForward,
            "WithoutForward must derive from PixelEncoder or FeatureEncoder, "
            "or define forward(images, generator)",
        ),
    ],
)
def test_a_missing_method_is_named(cls: type[Encoder], message: str) -> None:
    with pytest.raises(NotImplementedError) as caught:
        built(cls)(torch.rand(2, 3, 8, 8), draws())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "Returns must return its code as a tensor, got NoneType"),
        ([torch.zeros(2, 3, 8, 8)] * 4, "Returns must return its code as a tensor, got list"),
        (
            torch.zeros(4, 2, 3, 8, 8, dtype=torch.bool),
            "Returns must emit a floating-point dtype such as torch.float32, got torch.bool",
        ),
        (
            torch.zeros(4, 2, 3, 8, 8, dtype=torch.int64),
            "Returns must emit a floating-point dtype such as torch.float32, got torch.int64",
        ),
    ],
)
@pytest.mark.parametrize("base", [PixelEncoder, FeatureEncoder])
def test_a_code_that_is_not_a_floating_tensor_is_refused(
    base: type[Encoder], code: Any, message: str
) -> None:
    def returned(self: Encoder, *args: Any) -> Any:
        return code

    cls = type("Returns", (base,), {"emits": "binary", "spikes": returned, "encode": returned})
    with pytest.raises(TypeError) as caught:
        built(cls)(torch.rand(2, 3, 8, 8), draws())
    assert str(caught.value) == message
