from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas as pd
import pytest

from codingbench.energy import (
    COMPARED,
    CONVENTIONS,
    DEFAULT_PRICING,
    EXACT_AND_PAPER,
    TECHNOLOGIES,
    Pricing,
    energy_uj,
    get_convention,
    get_technology,
    pricings,
)
from codingbench.errors import SpecError
from codingbench.schema import COUNTS

# Every count has its own digit, so that a wrong or missing term shows.
COUNTS_OF_TWO_IMAGES = {
    "effective_binary": 1_000,
    "effective_signed": 20,
    "effective_level": 300,
    "effective_real": 4,
    "dense_binary": 1_000_000,
    "dense_signed": 20_000,
    "dense_level": 300_000,
    "dense_real": 4_000,
    "bias_adds": 5_000_000,
    "norm_macs": 60_000_000,
    "pool_ops": 700_000_000,
    "residual_adds": 8_000_000_000,
    "gate_muls": 90_000_000_000,
    "neuron_updates": 100_000_000_000,
    "zero_weight_acs": 3,
    "zero_weight_macs": 2,
    "paper_first_macs": 50,
    "paper_acs": 600.5,
    "syops_acs": 70.5,
    "syops_macs": 8,
    "lemaire_acs": 9_000,
    "lemaire_macs": 100,
    "lemaire_memory_pj": 2000.5,
    "images": 2,
}


def test_the_counts_above_are_all_there_are() -> None:
    assert set(COUNTS_OF_TWO_IMAGES) == {*COUNTS, "images"}


@pytest.mark.parametrize(
    "convention, picojoules",
    [
        ("exact", 0.9 * 1_020 + 4.6 * 90_000_000_304),
        ("dense-mac", 0.9 * 1_020 + 4.6 * 90_000_004_300),
        ("paper", 4.6 * 50 + 0.9 * 600.5),
        ("neurobench", 0.9 * 1_017 + 4.6 * 302),
        ("syops-like", 0.9 * 100_000_000_070.5 + 4.6 * 8),
        (
            "memory",
            4.6 * 90_060_324_000  # dense signed, level, real, normalisation, gates
            + 0.9 * 108_760_001_000  # spikes, normalisation, pooling, residuals, neurons
            + 4 * 24.96 * (1_000 + 324_000 + 5_000_000 + 200_000_000_000),
        ),
        ("lemaire", 0.1 * 9_000 + 3.2 * 100 + 2000.5),
        ("loihi", 27.1 * 1_324 + 81 * 100_000_000_000),
        ("spinnaker2", 450 * 1_324 + 2_190 * 100_000_000_000),
        # 8 bits: a weight fetched per event; a membrane read and written per update
        ("yan22nm", (0.05448 + 160) * 1_324 + (2 * 0.05448 + 4) * 100_000_000_000),
    ],
)
def test_each_convention_sums_its_own_counts(convention: str, picojoules: float) -> None:
    expected = picojoules * 1e-6 / 2
    assert energy_uj(COUNTS_OF_TWO_IMAGES, convention) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "technology, mac_pj, ac_pj, value_pj",
    [
        ("45nm-fp32", 4.6, 0.9, 99.84),
        ("45nm-fp16", 1.5, 0.4, 49.92),
        ("45nm-int8", 0.23, 0.03, 24.96),
    ],
)
def test_each_technology_brings_its_own_prices(
    technology: str, mac_pj: float, ac_pj: float, value_pj: float
) -> None:
    picojoules = ac_pj * 1_020 + mac_pj * 90_000_000_304
    found = energy_uj(COUNTS_OF_TWO_IMAGES, "exact", technology)
    assert found == pytest.approx(picojoules * 1e-6 / 2, rel=1e-12)
    assert get_technology(technology).value_pj == pytest.approx(value_pj)
    assert get_technology(technology.removeprefix("45nm-")) is TECHNOLOGIES[technology]
    assert get_technology(technology).source


def test_a_frame_gives_the_energy_of_each_row() -> None:
    silent = dict.fromkeys(COUNTS_OF_TWO_IMAGES, 0) | {"images": 5}
    frame = pd.DataFrame([COUNTS_OF_TWO_IMAGES, silent])
    assert energy_uj(frame).tolist() == pytest.approx([207000.0011582, 0.0], rel=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_is_linear_in_counts_of_the_schema_and_cites_its_source(name: str) -> None:
    row = dict.fromkeys(COUNTS, 7) | {"images": 1}
    tripled = {count: value * (1 if count == "images" else 3) for count, value in row.items()}
    assert energy_uj(tripled, name) == pytest.approx(3 * energy_uj(row, name), rel=1e-12)
    assert energy_uj(row, name) > 0
    assert CONVENTIONS[name].source and CONVENTIONS[name].summary


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'papr'; did you mean 'paper'\? \(known: .*exact.*paper"):
        get_convention("papr")
    with pytest.raises(SpecError, match="unknown technology '45nm-fp23'; did you mean '45nm-fp32'"):
        get_technology("45nm-fp23")


OWN = """
from codingbench.energy import Convention, Technology

adds = Convention(
    "adds-only", "every spike an addition, nothing else", "made up",
    lambda counts, chip: chip.ac_pj * counts["effective_binary"],
)
typo = Convention("typo", "an unknown count", "made up", lambda c, chip: c["efective_real"])
chip = Technology("my-chip", mac_pj=2.0, ac_pj=0.5, bits=16, source="made up")
"""


def test_users_can_define_a_convention_and_a_technology_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    found = energy_uj(COUNTS_OF_TWO_IMAGES, f"{file}:adds", f"{file}:chip")
    assert found == pytest.approx(0.5 * 1000 * 1e-6 / 2)
    assert get_convention(f"{file}:adds").name == "adds-only"


@pytest.mark.parametrize(
    "name, message",
    [
        ("{file}:add", "unknown energy convention in .*: 'add'; did you mean 'adds'"),
        ("{file}:chip", r"unknown energy convention in .*: 'chip'.*\(known: adds, typo\)"),
        ("{file}.py:adds", r"no file .*mine.py.py' for energy convention"),
    ],
)
def test_what_a_file_does_not_hold_is_refused_in_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    with pytest.raises(SpecError, match=message) as caught:
        get_convention(name.format(file=file))
    assert "\n" not in str(caught.value)


def test_a_convention_that_reads_an_unknown_count_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    expected = "typo: unknown count 'efective_real'; did you mean 'effective_real'"
    for counts in (COUNTS_OF_TWO_IMAGES, pd.DataFrame([COUNTS_OF_TWO_IMAGES])):
        with pytest.raises(SpecError, match=expected):
            energy_uj(counts, f"{file}:typo")


def test_a_pricing_is_resolved_once_from_names_and_cannot_change() -> None:
    pricing = Pricing.of("paper", "int8")
    assert pricing.convention is CONVENTIONS["paper"]
    assert pricing.technology is TECHNOLOGIES["45nm-int8"]
    assert Pricing.of() == DEFAULT_PRICING == EXACT_AND_PAPER[0]
    with pytest.raises(FrozenInstanceError):
        pricing.technology = TECHNOLOGIES["45nm-fp32"]  # type: ignore[misc]


def test_a_pricing_gives_one_number_for_a_row_and_a_series_for_a_frame() -> None:
    for pricing in pricings(["all"], "fp16"):
        uj = energy_uj(COUNTS_OF_TWO_IMAGES, pricing.convention.name, "fp16")
        assert pricing.energy_uj(COUNTS_OF_TWO_IMAGES) == uj
        assert pricing.energy_uj(pd.DataFrame([COUNTS_OF_TWO_IMAGES] * 2)).tolist() == [uj, uj]


def test_a_pricing_describes_itself_and_the_price_of_a_byte_only_where_it_counts() -> None:
    assert str(Pricing.of("exact", "int8")).endswith("; 45nm-int8, 0.23 pJ per MAC, 0.03 pJ per AC")
    assert str(Pricing.of("memory")).endswith(
        "; 45nm-fp32, 4.6 pJ per MAC, 0.9 pJ per AC, 24.96 pJ per byte"
    )


def test_several_pricings_keep_their_order_and_hold_each_convention_once() -> None:
    found = [pricing.convention.name for pricing in pricings(["paper", "all", "exact"])]
    assert found == ["paper", "exact", "dense-mac", "neurobench", "syops-like", "memory"]
    (loihi,) = pricings(["loihi", "loihi"])
    assert loihi.convention.name == "loihi" not in COMPARED
    assert Pricing.of("dense-mac").convention.column == "energy_dense_mac_uj"


def test_a_gate_costs_a_multiplication_in_three_conventions_and_nothing_in_the_others() -> None:
    """GAC's gate multiplies 131,072 values of a 32 x 32 image at T = 2: 0.60 uJ at 4.6 pJ."""
    counts = dict.fromkeys(COUNTS, 0) | {"gate_muls": 131_072, "images": 1}
    priced = {name: energy_uj(counts, name) for name in CONVENTIONS}
    assert {name for name, uj in priced.items() if uj} == {"exact", "dense-mac", "memory"}
    assert priced["exact"] == priced["dense-mac"] == priced["memory"] == pytest.approx(0.6029312)
    assert energy_uj(counts, "exact", "int8") == pytest.approx(0.03014656)


@pytest.mark.parametrize("name", [name for name in CONVENTIONS if name not in COMPARED])
def test_a_convention_with_prices_of_its_own_does_not_depend_on_the_technology(name: str) -> None:
    assert energy_uj(COUNTS_OF_TWO_IMAGES, name, "int8") == energy_uj(COUNTS_OF_TWO_IMAGES, name)
    pricing = Pricing.of(name, "int8")
    assert pricing.priced_by == name and "int8" not in str(pricing)
    assert str(pricing).endswith(CONVENTIONS[name].own_prices) and " pJ per " in str(pricing)
    assert Pricing.of("memory", "int8").priced_by == "45nm-int8"


def test_prices_that_were_not_read_in_the_paper_are_marked() -> None:
    marked = {name for name, c in CONVENTIONS.items() if "constants second-hand" in c.summary}
    assert marked == {"yan22nm"} and "second-hand" in CONVENTIONS["yan22nm"].source


def test_the_former_name_of_a_convention_is_accepted_with_one_line() -> None:
    with pytest.warns(UserWarning, match="^the energy convention 'syops' is now named 'syops-lik"):
        assert get_convention("syops") is CONVENTIONS["syops-like"]


def test_a_count_that_an_older_store_lacks_makes_the_energy_unknown() -> None:
    lacking = {name: float("nan") for name in COUNTS if name.startswith("lemaire")}
    frame = pd.DataFrame([COUNTS_OF_TWO_IMAGES, COUNTS_OF_TWO_IMAGES | lacking])
    assert energy_uj(frame, "lemaire").isna().tolist() == [False, True]
    assert energy_uj(frame, "exact").notna().all()
