import pandas as pd
import pytest

from codingbench.energy import CONVENTIONS, Technology, energy_uj, get_convention
from codingbench.errors import SpecError
from codingbench.schema import COUNTS, PAPER_COUNTS

# Every count is told apart by its digit, so that a wrong or missing term shows.
COUNTS_OF_TWO_IMAGES = {
    "effective_binary": 1_000,
    "effective_signed": 20,
    "effective_level": 300,
    "effective_real": 4,
    "dense_binary": 1_000_000,
    "dense_signed": 2_000_000,
    "dense_level": 3_000_000,
    "dense_real": 4_000_000,
    "paper_first_macs": 50,
    "paper_acs": 600.5,
    "images": 2,
}


def test_exact_prices_spikes_as_accumulates_and_the_rest_as_macs() -> None:
    # 0.9 pJ x 1020 + 4.6 pJ x 304 = 918 + 1398.4 = 2316.4 pJ for two images
    assert energy_uj(COUNTS_OF_TWO_IMAGES) == pytest.approx(1158.2e-6, rel=1e-12)


def test_paper_prices_the_first_convolution_as_macs_and_the_rest_as_accumulates() -> None:
    # 4.6 pJ x 50 + 0.9 pJ x 600.5 = 230 + 540.45 = 770.45 pJ for two images
    assert energy_uj(COUNTS_OF_TWO_IMAGES, "paper") == pytest.approx(385.225e-6, rel=1e-12)


def test_a_frame_gives_the_energy_of_each_row() -> None:
    silent = dict.fromkeys(COUNTS_OF_TWO_IMAGES, 0) | {"images": 5}
    frame = pd.DataFrame([COUNTS_OF_TWO_IMAGES, silent])
    assert energy_uj(frame).tolist() == pytest.approx([1158.2e-6, 0.0], rel=1e-12)


def test_another_technology_brings_its_own_prices() -> None:
    cheap = Technology("toy", mac_pj=10.0, ac_pj=1.0, source="made up for this test")
    # 1020 + 3040 pJ for two images
    assert energy_uj(COUNTS_OF_TWO_IMAGES, "exact", cheap) == pytest.approx(2030e-6, rel=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_is_linear_in_counts_of_the_schema_and_cites_its_source(name: str) -> None:
    row = dict.fromkeys([*COUNTS, *PAPER_COUNTS], 7) | {"images": 1}
    tripled = {count: value * (1 if count == "images" else 3) for count, value in row.items()}
    assert energy_uj(tripled, name) == pytest.approx(3 * energy_uj(row, name), rel=1e-12)
    assert energy_uj(row, name) > 0
    assert CONVENTIONS[name].source and CONVENTIONS[name].summary


def test_an_unknown_convention_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'papr'; did you mean 'paper'\? \(known: .*exact.*paper"):
        get_convention("papr")
