"""Codes with channels of their own: the stem, the shipped ones, and what the tables say of them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from codingbench.analysis.comparison import compare
from codingbench.analysis.leaderboard import rows
from codingbench.backbone import build_network
from codingbench.encoder import FeatureEncoder, PixelEncoder, Task, build_encoder
from codingbench.inspection.coding import prepare_codings
from codingbench.inspection.observe import observe
from codingbench.inspection.picture import draw
from codingbench.inspection.remarks import remarks
from codingbench.registry import BACKBONES, ENCODERS, Plugin
from codingbench.robustness.gradients import straight_through
from codingbench.views.comparison import view
from codingbench.views.rows import row_notes
from tests.test_encoders import draws, encoder, pixels, setting
from tests.test_leaderboard import cell

TASK = Task(2, 10, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)


def network_of(coding: str, backbone: str = "csnn[width=4]", seed: int = 0) -> Any:
    plugins = ENCODERS.resolve(coding), BACKBONES.resolve(backbone)
    return build_network(*plugins, TASK, seed).eval()


# --- onoff ------------------------------------------------------------------------------------


def test_onoff_reports_an_edge_on_both_sides_with_opposite_cells() -> None:
    image = torch.zeros(1, 1, 9, 16)
    image[..., 8:] = 1  # dark left, bright right
    on, off = encoder("onoff", 4, 1).spikes(image, draws())[:, 0, :, 4].unbind(1)  # [time, column]
    # the contrasts beside the edge are .0915, .1428, .0657 and 0; the levels .2, .1, .05, .025
    expected = torch.zeros(4, 16)
    expected[[2, 1, 2], [8, 9, 10]] = 1
    assert torch.equal(on, expected) and torch.equal(off, expected.flip(1))


def test_a_uniform_image_excites_no_cell() -> None:
    for grey in (0.0, 0.3, 1.0):
        spk = encoder("onoff[contrast=0.001]", 6, 3).spikes(torch.full((1, 3, 8, 8), grey), draws())
        assert not spk.any()


def test_onoff_contrasts_are_scipys_difference_of_gaussians() -> None:
    images = torch.rand(2, 3, 12, 11, generator=draws(1))
    center, surround = (
        gaussian_filter(images.double(), sigma, radius=3, mode="nearest", axes=(2, 3))
        for sigma in (1, 2)
    )
    c = torch.tensor(center - surround).float()
    coding = encoder("onoff", 5)
    torch.testing.assert_close(coding.drive(images), torch.cat([c, -c], 1), rtol=0, atol=1e-6)
    spk = coding.spikes(images, draws())
    both = torch.cat([c, -c], 1)
    for t in range(5):
        due = (both > 0.2 / 2**t) & ~(both > 0.4 / 2**t if t else torch.zeros_like(both) > 0)
        assert (spk[t].bool() != due).float().mean() < 1e-3  # rounding at a level
    assert spk.sum(0).max() == 1


# --- population -------------------------------------------------------------------------------


def test_population_cells_spike_the_earlier_the_closer_the_pixel_is_to_their_centre() -> None:
    # centres -.25, .25, .75, 1.25, s = 1/3; x = .25: responses .325, 1, .325, .011
    # 3 (1 - .325) = 2.03 -> step 2; 3 (1 - 1) -> 0; the last is below .1
    spk = encoder("population", 4, 1).spikes(pixels(0.25), draws())[:, 0, :, 0, 0]
    assert spk.T.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("cells", [3, 4, 7])
def test_population_equals_the_formulas_of_spikeprop(cells: int) -> None:
    coding = encoder(f"population[cells={cells},overlap=1.2]", 6, 1)
    values = torch.linspace(0, 1, 41)
    spk = coding.spikes(pixels(*values.tolist()), draws())[:, 0, :, 0]  # time, cell, pixel
    normal = torch.distributions.Normal
    for i in range(1, cells + 1):
        receptive = normal((2 * i - 3) / 2 / (cells - 2), 1 / 1.2 / (cells - 2))
        peak = receptive.log_prob(receptive.mean)
        response = torch.exp(receptive.log_prob(values) - peak)
        for x, r in enumerate(response.tolist()):
            expected = [0.0] * 6
            if r >= 0.1:
                expected[round(5 * (1 - r))] = 1.0
            assert spk[:, i - 1, x].tolist() == expected


def test_every_intensity_excites_a_cell() -> None:
    grey = torch.linspace(0, 1, 1001)
    for text in ("population", "population[cells=3]", "population[overlap=2,least=0.6]"):
        spk = encoder(text, 3, 1).spikes(pixels(*grey.tolist()), draws())
        assert (spk.sum((0, 2)) > 0).all()


# --- the stem ---------------------------------------------------------------------------------


class Twice(PixelEncoder):
    """Each pixel and its complement."""

    emits: Any = "binary"
    channels = 2

    def spikes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        code = torch.cat([images > 0.5, images <= 0.5], dim=1).to(images.dtype)
        return code.expand(self.num_steps, *code.shape)


@pytest.mark.parametrize(("coding", "times"), [("onoff", 2), ("population", 4)])
@pytest.mark.parametrize("backbone", ["csnn", "sew_resnet18"])
def test_the_stem_has_as_many_inputs_as_the_code_has_channels(
    coding: str, times: int, backbone: str
) -> None:
    net, direct = network_of(coding, backbone), network_of("direct", backbone)
    assert net.encoder.stem[0].in_channels == 3 * times
    assert net.encoder.stem[0].out_channels == direct.encoder.stem[0].out_channels
    assert net(torch.rand(2, 3, 32, 32), draws()).shape == (2, 2, 10)


def test_the_backbone_has_the_same_initial_weights_behind_any_stem() -> None:
    ours, direct = network_of("onoff", seed=3), network_of("direct", seed=3)
    pairs = zip(ours.backbone.parameters(), direct.backbone.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    again = network_of("onoff", seed=3)
    assert torch.equal(ours.encoder.stem[0].weight, again.encoder.stem[0].weight)
    other = network_of("onoff", seed=4)
    assert not torch.equal(ours.encoder.stem[0].weight, other.encoder.stem[0].weight)


@pytest.mark.parametrize(
    ("channels", "base", "message"),
    [
        (0, PixelEncoder, "channels of Odd must be a whole number from 1 on, got 0"),
        (1.5, PixelEncoder, "channels of Odd must be a whole number from 1 on, got 1.5"),
        (
            2,
            FeatureEncoder,
            "Odd must have channels = 1, got 2: only a PixelEncoder has channels of its own",
        ),
    ],
)
def test_impossible_channels_are_refused(channels: Any, base: Any, message: str) -> None:
    cls = type("Odd", (base,), {"emits": "binary", "channels": channels})
    with pytest.raises(ValueError) as caught:
        build_encoder(Plugin("odd", cls, (), ""), setting(4))
    assert str(caught.value) == message


def test_a_code_without_its_channels_is_refused_with_both_shapes() -> None:
    class Forgets(Twice):
        def spikes(self, images: Tensor, generator: torch.Generator) -> Tensor:
            return images.expand(self.num_steps, *images.shape)

    coding = build_encoder(Plugin("forgets", Forgets, (), ""), setting(4))
    with pytest.raises(ValueError, match=r"emit shape \(4, 2, 6, 8, 8\), got \(4, 2, 3, 8, 8\)"):
        coding(torch.rand(2, 3, 8, 8), draws())


# --- attacks ----------------------------------------------------------------------------------


def test_attacks_know_that_off_cells_spike_for_darker_pixels() -> None:
    """A derivative of 1 for every channel would point the wrong way for OFF cells."""
    coding, image = encoder("onoff", 1, 1), torch.full((1, 1, 9, 9), 0.5, requires_grad=True)
    with straight_through(coding):
        on, off = coding(image, draws())[0, 0]  # the stem is the identity
    (slope_on,) = torch.autograd.grad(on[4, 4], image, retain_graph=True)
    (slope_off,) = torch.autograd.grad(off[4, 4], image)
    kernel = coding.kernel[0, 0]
    assert kernel[3, 3] > 0 and not on.any() and not off.any()
    torch.testing.assert_close(slope_on[0, 0, 1:8, 1:8], kernel)
    torch.testing.assert_close(slope_off[0, 0, 1:8, 1:8], -kernel)


def test_attacks_reach_the_image_through_a_population() -> None:
    coding, image = encoder("population", 3, 1), pixels(0.1, 0.9).requires_grad_()
    with straight_through(coding):
        code = coding(image, draws())
    for t in range(3):
        (slopes,) = torch.autograd.grad(code[t, 0, 1].sum(), image, retain_graph=True)
        darker, brighter = slopes.flatten().tolist()
        assert darker > 0 > brighter  # both pixels move towards the centre of cell 2, .25


# --- inspect ----------------------------------------------------------------------------------


def test_inspect_says_that_the_stem_differs_and_shares_one_window(tmp_path: Path) -> None:
    codings = prepare_codings(("onoff", "population[cells=20]", "direct"), "fashion_mini", 2, 20)
    assert len({coding.window for coding in codings}) == 1
    observations = [observe(coding) for coding in codings]
    assert [found.code_channels for found in observations] == [2, 20, 1]
    assert observations[0].shape == (2, 2, 28, 28)
    said = "the code has 2 channels for each channel of the image, so its stem has 2 times as many"
    assert any(line.startswith(said) for line in remarks(observations[0]))
    assert not any("channels" in line for line in remarks(observations[2]))
    assert observations[0].cost.stem_parameters == 2 * 16 * 9 + 32
    draw(tmp_path / "codes.png", codings[0].conditions(), codings, observations)
    assert (tmp_path / "codes.png").stat().st_size > 10_000


# --- tables -----------------------------------------------------------------------------------


def cells() -> pd.DataFrame:
    return pd.DataFrame(
        [
            cell(name, seed, 0.8 + 0.01 * seed, code_channels=channels)
            for name, channels in (("direct", 1), ("onoff", 2), ("rate", 1))
            for seed in (0, 1)
        ]
    )


def test_the_leaderboard_says_which_stems_have_more_inputs() -> None:
    table = rows(cells())
    assert dict(zip(table["encoder"], table["code_channels"], strict=True)) == {
        "direct": 1,
        "onoff": 2,
        "rate": 1,
    }
    said = (
        "Codes with channels of their own have a stem with more inputs than that of the other "
        "rows: onoff (2 x)."
    )
    assert said in [*row_notes(table)]
    assert not any("stem" in line for line in row_notes(table[table["encoder"] != "onoff"]))


def test_compare_says_that_the_stems_differ() -> None:
    table = compare(cells(), ["onoff", "direct", "rate"])
    assert table[["code_channels_a", "code_channels_b"]].to_numpy().tolist() == [
        [2, 1],
        [2, 1],
        [1, 1],
    ]
    shown = view(table)
    lines = [*shown.notes(shown.frame)]
    assert [line for line in lines if "stems" in line] == [
        f"The stems of onoff and {other} differ: their codes have 2 and 1 channels for each "
        "channel of the image."
        for other in ("direct", "rate")
    ]
