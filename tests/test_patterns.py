"""Patterns over time, and exact statements about those of codings and neurons."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from codingbench.inspection.patterns import PatternCount, Patterns
from codingbench.neurons import MultiStepLeaky
from tests.test_encoders import draws, encoder, pixels

pytestmark = pytest.mark.usefixtures("one_thread")

GAC_ON_CIFAR, GAC_ON_IMAGENET = (0.5, 1.0), (0.25, 0.5)
"""Decay and threshold of the two neurons in the code of the GAC paper."""


def patterns_of(code: Tensor) -> Patterns:
    count = PatternCount(len(code))
    count.add(code)
    return count.result()


def train(cur: float, num_steps: int, beta: float = 0.5, threshold: float = 1.0) -> str:
    """Return the pattern of a neuron under a constant current."""
    currents = torch.full((num_steps, 1, 1), cur, dtype=torch.float64)
    (pattern,) = patterns_of(MultiStepLeaky(beta, threshold)(currents)).most_frequent
    return pattern


def periodic(period: int, num_steps: int) -> str:
    return "".join("1" if t % period == 0 else "0" for t in range(1, num_steps + 1))


# --- counting ---------------------------------------------------------------------------------


def test_patterns_by_hand() -> None:
    code = torch.tensor([[0.0, 2.0, 0.0, -1.0], [0.5, 0.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.1]])
    found = patterns_of(code.unsqueeze(1))
    assert found.most_frequent == {"000": 0.25, "010": 0.25, "100": 0.25, "111": 0.25}
    assert (found.possible, found.used, found.entropy_bits) == (8, 4, 2.0)


def test_entropy_of_unequal_shares() -> None:
    # shares 1/2, 1/4, 1/8, 1/8: 1/2 + 1/2 + 3/8 + 3/8 bits
    code = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0, 1]]).unsqueeze(1)
    assert patterns_of(code).entropy_bits == pytest.approx(1.75)


def test_batches_count_as_one() -> None:
    code = torch.rand(5, 12, 3, 4, 4, generator=draws(1)).round()
    count = PatternCount(5)
    for part in code.split(5, dim=1):
        count.add(part)
    assert count.result() == patterns_of(code)


def test_the_longest_pattern_keeps_all_its_digits() -> None:
    code = torch.zeros(62, 1, 2)
    code[0, 0, 0] = code[61, 0, 1] = 1
    assert list(patterns_of(code).most_frequent) == ["0" * 61 + "1", "1" + "0" * 61]


# --- the neuron under a constant current ------------------------------------------------------


@pytest.mark.parametrize("neuron", [GAC_ON_CIFAR, GAC_ON_IMAGENET])
@pytest.mark.parametrize(("num_steps", "possible"), [(2, 4), (4, 16), (6, 64), (8, 256)])
def test_a_constant_current_makes_t_plus_1_patterns(
    neuron: tuple[float, float], num_steps: int, possible: int
) -> None:
    # currents of long periods lie close together, just above (1 - decay) threshold
    spans = ((-3, 3, 60_001), (0.3, 1.1, 200_001))
    currents = torch.cat([torch.linspace(*span, dtype=torch.float64) for span in spans])
    found = patterns_of(MultiStepLeaky(*neuron)(currents.expand(num_steps, 1, -1)))
    periods = [periodic(period, num_steps) for period in range(1, num_steps + 1)]
    assert (found.used, found.possible) == (num_steps + 1, possible)
    assert set(found.most_frequent) == {*periods, "0" * num_steps}


@pytest.mark.parametrize("period", range(1, 7))
def test_the_period_is_k_from_just_above_2_to_the_k_minus_1_over_2_to_the_k_less_1(
    period: int,
) -> None:
    """The limits are 1, 2/3, 4/7, ...: v[k] = I (2^k - 1) / 2^(k-1) must exceed 1."""
    least = float(Fraction(2 ** (period - 1), 2**period - 1))
    assert train(least * (1 + 1e-12), 24) == periodic(period, 24)
    assert train(least * (1 - 1e-12), 24) == periodic(period + 1, 24)


def test_at_threshold_itself_a_neuron_does_not_spike() -> None:
    assert train(1.0, 8) == "01010101"  # strict: v[1] = 1 is not above 1


@pytest.mark.parametrize("cur", [0.5, 0.25, 0.0, -2.0])
def test_up_to_half_the_threshold_a_neuron_never_spikes(cur: float) -> None:
    assert train(cur, 62) == "0" * 62


def test_patterns_equal_those_of_exact_arithmetic() -> None:
    """Currents are multiples of 1/64, so that fractions represent the membrane exactly."""
    for numerator in range(-32, 129):
        current, mem, exact = Fraction(numerator, 64), Fraction(0), ""
        for _ in range(8):
            mem = mem / 2 + current
            exact += "1" if mem > 1 else "0"
            mem = Fraction(0) if mem > 1 else mem
        assert train(float(current), 8) == exact, current


# --- gac --------------------------------------------------------------------------------------


def features(channels: int) -> Tensor:
    return torch.randn(20, channels, 8, 8, generator=draws(6)).mul(1.5)


@pytest.mark.parametrize("num_steps", [2, 4, 6, 8])
def test_gac_has_the_patterns_of_direct(num_steps: int) -> None:
    gated, direct = (
        patterns_of(encoder(name, num_steps, channels=4).encode(features(4)))
        for name in ("gac", "direct")
    )
    assert gated == direct and direct.used == num_steps + 1


@pytest.mark.parametrize("num_steps", [2, 6])
def test_a_neuron_behind_gac_is_silent_at_the_first_step(num_steps: int) -> None:
    encode = encoder("gac", num_steps, channels=4)
    with torch.no_grad():
        for layer in (encode.temporal[0], encode.temporal[2]):
            layer.weight.abs_().mul_(20)  # gates far from 1/2
        code = encode.encode(features(4))
    assert code.max() > 0.95
    spk = MultiStepLeaky()(code)
    assert not spk[0].any() and spk[1].any()


def test_a_gate_below_1_leaves_at_most_every_second_step() -> None:
    gates = torch.rand(6, 1, 50_000, generator=draws(2), dtype=torch.float64).pow(0.1)
    assert gates.max() < 1
    found = patterns_of(MultiStepLeaky()(gates))
    assert found.used == len(found.most_frequent)
    assert all(p[0] == "0" and "11" not in p and p.count("1") <= 3 for p in found.most_frequent)
    assert "010101" in found.most_frequent


@pytest.mark.parametrize(("gate", "pattern"), [(0.999, "010101"), (0.6, "001001"), (0.5, "000000")])
def test_a_constant_gate_on_spikes_at_every_step(gate: float, pattern: str) -> None:
    assert train(gate, 6) == pattern


def test_gates_up_to_a_half_silence_the_neuron_in_any_order() -> None:
    gates = torch.rand(40, 1, 2_000, generator=draws(3), dtype=torch.float64) / 2
    gates[:, :, 0] = 0.5
    assert not MultiStepLeaky()(gates).any()


def temporal(encode: Any, mean: float, largest: float) -> Tensor:
    """Return the TA of an image with this mean and maximum, computed by the encoder's layers."""
    pooled = torch.tensor([mean, largest]).double().unsqueeze(1).expand(2, encode.num_steps)
    attention: Tensor = encode.double().temporal(pooled).sum(0)
    return attention


@pytest.mark.parametrize(("mean", "largest"), [(0.3, 4.0), (-0.3, 4.0), (-2.0, -0.5)])
def test_temporal_attention_is_the_two_branches_scaled(mean: float, largest: float) -> None:
    """TA_t = |a| u_t + |m| v_t, where u and v are W2 ReLU(+-W1 1) with the signs of a and m."""
    encode = encoder("gac", 6, channels=4).double()
    ones = torch.ones(1, 6).double()
    branch = {sign: encode.temporal(sign * ones)[0] for sign in (1, -1)}
    signs = [1 if value > 0 else -1 for value in (mean, largest)]
    expected = abs(mean) * branch[signs[0]] + abs(largest) * branch[signs[1]]
    torch.testing.assert_close(temporal(encode, mean, largest), expected)


def test_temporal_attention_of_all_images_spans_two_directions() -> None:
    encode = encoder("gac", 8, channels=4)
    values = torch.randn(200, 2, generator=draws(4)).tolist()
    family = torch.stack([temporal(encode, mean, largest) for mean, largest in values])
    assert torch.linalg.matrix_rank(family, rtol=1e-9) == 2


def test_the_gate_is_one_map_times_one_number_per_step() -> None:
    """SCA does not depend on time, so log(g / (1 - g)) = TA[t] SCA[p] has rank 1."""
    encode = encoder("gac", 6, channels=4).double()
    exponent = torch.logit(encode.gate(features(4).double()))  # time, image, ...
    sizes = torch.linalg.svdvals(exponent.transpose(0, 1).flatten(2))
    assert (sizes[:, 0] > 1e-3).all()
    assert (sizes[:, 1] < 1e-9 * sizes[:, 0]).all()


# --- pixel codes ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("num_steps", [1, 4, 8])
def test_latency_spikes_once_in_every_pixel_that_is_bright_enough(
    scale: str, num_steps: int
) -> None:
    values = torch.linspace(0, 1, 4_001).tolist()
    code = encoder(f"latency[scale={scale},threshold=0.1]", num_steps, 1)
    found = patterns_of(code.spikes(pixels(*values), draws()))
    assert found.most_frequent.pop("0" * num_steps) == sum(v < 0.1 for v in values) / 4_001
    assert all(pattern.count("1") == 1 for pattern in found.most_frequent)


def test_log_latency_spikes_in_the_first_steps_for_any_t() -> None:
    """round((T - 1) - ln(a x + 1)) tends to round(-ln x), at most 5 for x above 0.01."""
    values = torch.linspace(0.01, 1, 2_000).tolist()
    spk = encoder("latency[scale=log]", 16, 1).spikes(pixels(*values), draws())
    by_step = spk.sum((1, 2, 3, 4)).tolist()
    assert all(by_step[:5]) and not any(by_step[6:])
    edges = [1, *(2.718281828459045 ** -(t + 0.5) for t in range(4))]  # bounds of x for each step
    expected = [2_000 * (above - below) / 0.99 for above, below in pairwise(edges)]
    assert by_step[:4] == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(("num_steps", "used"), [(2, 4), (4, 16)])
def test_rate_uses_every_pattern(num_steps: int, used: int) -> None:
    images = torch.full((1, 1, 40, 40), 0.5)
    found = patterns_of(encoder("rate", num_steps, 1).spikes(images, draws(8)))
    assert found.used == used == found.possible
    assert found.entropy_bits == pytest.approx(num_steps, abs=0.05)
