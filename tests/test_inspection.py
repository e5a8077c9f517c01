"""Measurements of codes: values by hand, closed forms, and real images."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.datasets.pixels import to_unit
from codingbench.errors import SpecError
from codingbench.inspection.activity import (
    Activity,
    ActivityCount,
    AmplitudeCount,
    Amplitudes,
)
from codingbench.inspection.coding import InspectedCoding, prepare_codings
from codingbench.inspection.observe import Observation, observe
from codingbench.inspection.reconstruction import Decoder
from codingbench.inspection.remarks import remarks
from codingbench.inspection.similarity import Similarity, SimilaritySum
from codingbench.views.glyphs import heat, spark
from tests.test_encoders import draws

pytestmark = pytest.mark.usefixtures("one_thread")

PLUGINS = """
import torch
from codingbench.encoder import FeatureEncoder, PixelEncoder

class Relative(PixelEncoder):
    emits = "binary"

    def spikes(self, images, generator):
        return (images > images.mean()).to(images.dtype).expand(self.num_steps, *images.shape)

class Silent(PixelEncoder):
    emits = "binary"

    def spikes(self, images, generator):
        return torch.zeros(self.num_steps, *images.shape)

class First(PixelEncoder):
    emits = "binary"

    def spikes(self, images, generator):
        spk = torch.zeros(self.num_steps, *images.shape)
        spk[0] = images >= 0.1
        spk[1, :, :, 0, 0] = 1
        return spk

class Broken(FeatureEncoder):
    emits = "real"

    def encode(self, features):
        raise RuntimeError("no such thing")

class Around(FeatureEncoder):
    emits = "real"

    def forward(self, images, generator):
        return self.stem(images).expand(self.num_steps, -1, -1, -1, -1)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Any:
    (tmp_path / "plugins.py").write_text(PLUGINS)
    return lambda name: f"{tmp_path / 'plugins.py'}:{name}"


def inspected(encoder: str, num_steps: int = 4, samples: int = 40) -> Observation:
    (coding,) = prepare_codings((encoder,), "fashion_mini", num_steps, samples)
    return observe(coding)


# --- activity ---------------------------------------------------------------------------------


def activity_of(code: Tensor) -> Activity:
    count = ActivityCount((code.shape[0], *code.shape[2:]))
    for part in code.split(1, dim=1):
        count.add(part)
    return count.result()


def amplitudes_of(code: Tensor) -> Amplitudes | None:
    count = AmplitudeCount()
    for part in code.split(1, dim=1):
        count.add(part)
    return count.result()


def test_activity_by_hand() -> None:
    # two steps, two images, one channel of 1 x 3 positions; the second image is silent
    code = torch.tensor([[[1.0, 0.0, 0.5]], [[2.0, 0.0, 0.0]]])[:, :, None, None]
    code = torch.cat([code, torch.zeros_like(code)], dim=1)
    found = activity_of(code)
    assert found.nonzero_per_image == 1.5
    assert found.nonzero_by_step == [1.0, 0.5]
    assert found.rate == 0.25 and found.rate_by_step == pytest.approx([1 / 3, 1 / 6])
    assert found.rate_by_row == [0.25] and found.rate_by_column == [0.5, 0.0, 0.25]
    assert found.busiest_step == 1 and found.busiest_share == pytest.approx(2 / 3)
    # exp of the entropy of 2/3 and 1/3
    assert found.effective_steps == pytest.approx((3 / 2) ** (2 / 3) * 3 ** (1 / 3))
    assert found.silent_positions == pytest.approx(1 / 3)
    assert found.silent_images == 1


def test_a_code_of_zeros_has_no_busiest_step() -> None:
    found = activity_of(torch.zeros(3, 2, 1, 2, 2))
    assert found.effective_steps is found.busiest_step is found.busiest_share is None
    assert (found.silent_positions, found.silent_images) == (1.0, 2)
    assert amplitudes_of(torch.zeros(3, 2, 1, 2, 2)) is None


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_spikes_spread_evenly_use_every_step(num_steps: int) -> None:
    found = activity_of(torch.ones(num_steps, 1, 1, 2, 2))
    assert found.effective_steps == pytest.approx(num_steps)


def test_amplitudes_by_hand() -> None:
    # two positions over three steps: 1, 3, 0 and 0, 0, 2; the values 1, 3 about their mean 2
    code = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])[:, None, None, None]
    found = amplitudes_of(code)
    assert found is not None
    spread = pytest.approx(math.sqrt(2 / 3))
    assert asdict(found) == {
        "mean": 2.0,
        "std": spread,
        "lowest": 1.0,
        "highest": 3.0,
        "std_over_steps": spread,
    }


def test_one_value_per_position_does_not_vary_over_steps() -> None:
    values = torch.rand(1, 2, 3, 4, 4, generator=draws(1)) + 0.5
    found = amplitudes_of(values.expand(6, -1, -1, -1, -1))
    assert found is not None
    assert found.std > 0.2 and found.std_over_steps == pytest.approx(0, abs=1e-9)


# --- similarity -------------------------------------------------------------------------------


def similarity_of(code: Tensor) -> Similarity:
    total = SimilaritySum(len(code))
    for part in code.split(1, dim=1):
        total.add(part)
    return total.result()


def test_similarity_by_hand() -> None:
    # image 1: (3, 4) and (4, 3), cosine 24/25; image 2: (1, 0) and (0, 1), cosine 0
    code = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 1.0]]])[:, :, None, None]
    found = similarity_of(code)
    assert found.cosine == [pytest.approx([1, 0.48]), pytest.approx([0.48, 1])]
    assert found.mean_off_diagonal == pytest.approx(0.48)


def test_an_image_silent_at_a_step_has_no_cosine_there() -> None:
    code = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[4.0, 3.0], [0.0, 0.0]]])[:, :, None, None]
    assert similarity_of(code).mean_off_diagonal == pytest.approx(0.96)
    silent = similarity_of(torch.zeros(2, 3, 1, 2, 2))
    assert silent.mean_off_diagonal is None and silent.cosine == [[None, None], [None, None]]


def test_one_step_has_no_similarity_to_others() -> None:
    found = similarity_of(torch.ones(1, 2, 1, 2, 2))
    assert found.mean_off_diagonal is None and found.cosine == [[pytest.approx(1)]]


# --- reconstruction ---------------------------------------------------------------------------


def curve(code: Tensor, images: Tensor, window: int = 3, block: int = 1) -> list[Any]:
    """Half of the images to fit on, half to score."""
    half = images.shape[0] // 2
    shape = (code.shape[0], *code.shape[2:])
    decoder = Decoder(shape, images.shape[1], window, block, half, draws())
    decoder.add(code[:, :half], images[:half], True)
    decoder.add(code[:, half:], images[half:], False)
    return decoder.curve()


def noise(images: int, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(images, channels, side, side, generator=draws(seed))


@pytest.mark.parametrize("window", [1, 3])
def test_the_image_itself_is_reconstructed_perfectly(window: int) -> None:
    images = torch.rand(40, 3, 8, 8, generator=draws(1))
    code = images.expand(2, -1, -1, -1, -1)
    assert curve(code, images, window) == pytest.approx([1, 1], abs=1e-6)


def test_a_code_that_is_the_same_for_all_images_reconstructs_nothing() -> None:
    images = torch.rand(40, 1, 8, 8, generator=draws(1))
    pattern = torch.rand(1, 2, 8, 8, generator=draws(2))
    for code in (torch.zeros(40, 2, 8, 8), torch.ones(40, 2, 8, 8), pattern.expand(40, -1, -1, -1)):
        assert curve(code.unsqueeze(0), images) == pytest.approx([0], abs=1e-9)


def test_half_of_the_pixels_of_noise_are_half_of_its_variance() -> None:
    images = noise(400)
    kept = images * (torch.arange(8) % 2)
    # 200 x 64 pixels: the share of power in half of them has a deviation of about 0.6 %
    assert curve(kept.unsqueeze(0), images) == pytest.approx([0.5], abs=0.03)


def test_noise_as_strong_as_the_signal_leaves_half_of_the_variance() -> None:
    images = noise(400)
    code = images + noise(400, seed=1)
    assert curve(code.unsqueeze(0), images) == pytest.approx([0.5], abs=0.03)


def test_the_curve_rises_with_each_step_that_adds_information() -> None:
    images = noise(400, channels=2)
    nothing = torch.zeros_like(images)
    first, second = (images * mask[:, None, None] for mask in torch.eye(2))
    code = torch.stack([first, nothing, second, first])
    assert curve(code, images) == pytest.approx([0.5, 0.5, 1, 1], abs=0.02)


def test_a_pixel_is_predicted_from_its_neighbours() -> None:
    images = noise(60)
    moved = images.roll(1, 3).unsqueeze(0)
    inside = curve(moved, images)[0]
    # the rightmost of eight columns has its pixel on the other side
    assert inside == pytest.approx(7 / 8, abs=0.03)
    assert curve(moved, images, window=1)[0] == pytest.approx(0, abs=0.03)


def test_a_position_stands_for_its_block_of_pixels() -> None:
    images = noise(40)
    code = F.pixel_unshuffle(images, 2).unsqueeze(0)
    assert curve(code, images, window=1, block=2) == pytest.approx([1], abs=1e-6)
    mean = F.avg_pool2d(images, 2).unsqueeze(0)
    # the mean of four pixels has a quarter of their variance
    assert curve(mean, images, window=1, block=2) == pytest.approx([0.25], abs=0.04)


def test_r2_equals_that_of_least_squares_written_out() -> None:
    """Windows are gathered pixel by pixel, centred per position, and solved with numpy."""
    images, code = noise(50, side=5), noise(50, 2, side=5, seed=1)
    code = (code + 0.7 * images.roll(1, 2)).round()
    z = np.zeros((50, 25, 18))
    padded = np.pad(code.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for row in range(5):
        for column in range(5):
            around = padded[:, :, row : row + 3, column : column + 3]
            z[:, 5 * row + column] = around.reshape(50, 18)
    y = images.double().numpy().reshape(50, 25)
    z, y = z - z[:25].mean(0), y - y[:25].mean(0)
    weights, *_ = np.linalg.lstsq(z[:25].reshape(-1, 18), y[:25].reshape(-1), rcond=None)
    error = ((y[25:] - z[25:] @ weights) ** 2).sum() / (y[25:] ** 2).sum()
    # for 18 weights and 625 pixels, the chosen penalty changes little
    assert curve(code.unsqueeze(0), images)[0] == pytest.approx(1 - error, abs=2e-3)


def test_a_code_of_noise_is_not_mistaken_for_the_image() -> None:
    """The penalty keeps R^2 at 0 with more features (288) than fitted images (20)."""
    images, code = noise(40), noise(40, 32, seed=1)
    (r2,) = curve(code.unsqueeze(0), images)
    assert -0.05 < r2 < 0.02


def test_images_that_do_not_differ_have_no_r2() -> None:
    images = torch.rand(1, 1, 8, 8, generator=draws(1)).expand(20, -1, -1, -1)
    assert curve(noise(20).unsqueeze(0), images) == [None]


# --- real images ------------------------------------------------------------------------------


def test_batch_normalisation_has_the_statistics_of_the_images() -> None:
    """They do not depend on T, so that codes at different T are codes of the same features."""
    stems = []
    for num_steps in (1, 8):
        (coding,) = prepare_codings(("direct",), "fashion_mini", num_steps, samples=100)
        encoder: Any = coding.encoder
        images = to_unit(coding.images[:50])
        with torch.no_grad():
            features = encoder.stem((images - encoder.mean) / encoder.std)
        assert features.mean((0, 2, 3)).abs().max() < 1e-4
        assert (features.var((0, 2, 3)) - 1).abs().max() < 1e-3
        stems.append(encoder.stem.state_dict())
    assert all(torch.equal(stems[0][name], stems[1][name]) for name in stems[0])


def test_direct_coding_uses_t_plus_1_patterns_of_real_images() -> None:
    for num_steps in (2, 4):
        found = inspected("direct", num_steps)
        used, possible = found.patterns.used, found.patterns.possible
        assert (used, possible) == (num_steps + 1, 2**num_steps)
        assert remarks(found) == [
            f"{used} patterns over time of {possible} possible: no more than T + 1"
        ]


def test_gac_changes_only_amplitudes() -> None:
    gac, direct = inspected("gac"), inspected("direct")
    assert (gac.activity, gac.patterns) == (direct.activity, direct.patterns)
    assert direct.amplitudes is None and gac.amplitudes is not None
    assert 0 < gac.amplitudes.lowest < gac.amplitudes.highest < 1
    assert gac.cost.stem_uj == direct.cost.stem_uj and gac.cost.coding_uj > 10


def test_a_constant_current_carries_all_information_at_the_first_step() -> None:
    found = inspected("direct[spiking=false]")
    assert found.reconstruction.r2 == pytest.approx([1] * 4, abs=1e-6)
    assert found.similarity.mean_off_diagonal == pytest.approx(1)
    assert remarks(found) == ["all steps emit the same code, so later steps add nothing"]


def test_log_latency_uses_few_steps_and_linear_latency_does_not() -> None:
    linear, log = (inspected(f"latency[scale={scale}]", 8, 200) for scale in ("linear", "log"))
    assert (linear.activity.effective_steps or 0) > 6.5
    assert (log.activity.effective_steps or 9) < 3.5
    assert remarks(linear) == ["9 patterns over time of 256 possible: no more than T + 1"]
    crowded, idle, few = remarks(log)
    assert crowded.startswith("the code uses few steps, effectively 3.0 of 8: 52 % of all spikes")
    assert idle == "3 steps emit nothing"
    assert few.startswith("6 patterns over time of 256")
    gained = [r2 for r2 in log.reconstruction.r2 if r2 is not None]
    assert gained[-1] - gained[1] < 0.01 < gained[1] - gained[0]


def test_rate_coding_has_as_many_spikes_as_its_pixels_predict() -> None:
    (coding,) = prepare_codings(("rate",), "fashion_mini", 4, samples=40)
    images = to_unit(coding.images).double()
    expected = 4 * images.sum() / 40
    # 4 standard deviations of a sum of Bernoulli draws
    bound = 4 * (4 * (images * (1 - images)).sum()).sqrt() / 40
    found = observe(coding)
    assert abs(found.activity.nonzero_per_image - expected) < bound
    assert found.patterns.used == 16 and found.batch_dependence is None
    assert observe(coding) == found


def test_latency_is_silent_where_pixels_are_dark() -> None:
    (coding,) = prepare_codings(("latency",), "fashion_mini", 4, samples=40)
    bright = to_unit(coding.images) >= 0.01
    found = observe(coding)
    assert found.activity.nonzero_per_image == bright.sum() / 40
    never = (~bright.any(0)).double().mean()
    assert found.activity.silent_positions == pytest.approx(float(never))
    assert found.batch_dependence == 0


def test_the_stem_costs_as_much_as_its_operations() -> None:
    found = inspected("direct", samples=8).cost
    # 16 channels x (3 x 28 - 2)^2 pairs of a pixel and a weight, all multiplied: none is 0
    assert found.operations_per_image == {"binary": 0, "signed": 0, "level": 0, "real": 107_584}
    assert found.stem_uj == pytest.approx(107_584 * 4.6e-6)
    assert (found.coding_uj, found.stem_parameters, found.coding_parameters) == (0, 176, 0)
    assert found.uncounted == []


def test_images_of_both_halves_are_disjoint_and_balanced() -> None:
    (coding,) = prepare_codings(("latency",), "fashion_mini", 2, samples=40)
    halves: dict[bool, list[Tensor]] = {True: [], False: []}
    for images, is_fitted in coding.batches():
        halves[is_fitted] += [*images]
    assert len(halves[True]) == len(halves[False]) == coding.fitted == 20
    assert not any(torch.equal(a, b) for a in halves[True] for b in halves[False])


def test_a_code_that_depends_on_its_batch_gets_a_remark(plugin: Any) -> None:
    found = inspected(plugin("Relative"))
    assert found.batch_dependence == 1
    assert remarks(found)[0] == (
        "the code of an image depends on the other images of its batch: single values differ by "
        "up to 1"
    )


def test_a_code_in_one_step_gets_a_remark(plugin: Any) -> None:
    first, *_ = remarks(inspected(plugin("First"), num_steps=3))
    assert first == "100 % of all spikes fall in step 1 of 3"


def test_a_silent_code_gets_a_remark(plugin: Any) -> None:
    found = inspected(plugin("Silent"))
    assert remarks(found) == ["the code is silent: all of its values are 0"]
    assert found.reconstruction.r2 == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Broken", "Broken: RuntimeError: no such thing"),
        ("Around", "Around: its code does not pass through the base class"),
    ],
)
def test_a_plugin_that_fails_is_one_line(plugin: Any, name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        inspected(plugin(name))


def test_a_code_too_large_to_be_fitted_has_no_r2() -> None:
    (coding,) = prepare_codings(("direct",), "fashion_mini", 4, samples=8)
    coding.window = None
    found = observe(coding)
    assert found.reconstruction.r2 == [None] * 4 and found.reconstruction.window is None


def test_a_stem_that_halves_the_image_is_decoded_by_blocks(tmp_path: Path) -> None:
    file = tmp_path / "strided.py"
    file.write_text(
        "from torch import nn\n"
        "from codingbench.backbones.csnn import CSNN\n\n"
        "class Strided(CSNN):\n"
        "    def make_stem(self, channels):\n"
        "        return nn.Conv2d(channels, self.stem_channels, 3, stride=2, padding=1)\n"
    )
    (coding,) = prepare_codings(
        ("direct[spiking=false]",), "fashion_mini", 1, 80, f"{file}:Strided"
    )
    assert isinstance(coding, InspectedCoding) and isinstance(coding.encoder.stem, nn.Conv2d)
    found = observe(coding)
    # 16 values per 2 x 2 pixels, from windows that cover them: nothing is lost
    assert found.shape == (1, 16, 14, 14)
    assert found.reconstruction.r2 == pytest.approx([1], abs=1e-3)


# --- glyphs -----------------------------------------------------------------------------------


def test_glyphs_reach_from_nothing_to_the_top() -> None:
    assert spark([0.0, 0.5, 1.0, None], top=1.0) == "·▄█·"
    assert heat([-1.0, 0.1, 0.5, 2.0], top=1.0) == " ░▒█"
    assert spark([0.0, 0.0]) == "··" and heat([]) == ""
