import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from codingbench.analysis.comparison import COLUMNS, compare, labels
from codingbench.analysis.statistics import (
    bootstrap_interval,
    gram_of,
    mcnemar,
    over_seeds_and_images,
)
from codingbench.errors import SpecError
from codingbench.store.correctness import Predictions
from codingbench.views.comparison import verdict, view
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json
from tests.test_leaderboard import cell, frame
from tests.test_ties import IMAGES, made

GAC = {"effective_real": 72_000_000}
"""Twice the multiply-accumulates of the other codings: 0.46 uJ more per image."""


def of(names: Sequence[str], made_cells: tuple[pd.DataFrame, Mapping[str, Predictions]]) -> Any:
    """Return the rows of a comparison as named tuples."""
    cells, answers = made_cells
    return list(compare(cells, names, answers=lambda few: answers).itertuples())


def runs(name: str, accuracies: Sequence[float], **values: Any) -> list[dict[str, Any]]:
    return [cell(name, seed, a, **values) for seed, a in enumerate(accuracies)]


def said(*cells: dict[str, Any]) -> str:
    """Return the verdict on gac and direct, paired over seeds only."""
    (row,) = compare(frame(*cells), ["gac", "direct"]).itertuples()
    return verdict(row)


def test_every_number_is_that_of_the_tests_on_the_runs_of_the_same_seeds() -> None:
    cells, answers = made({"gac": 0.9, "direct": 0.8}, seeds=4)
    shared = cells[~cells["key"].isin(["gac-3", "direct-0"])]
    (row,) = of(["gac", "direct"], (shared, answers))
    right = [np.stack([answers[f"{n}-{s}"].right for s in (1, 2)]) for n in ("gac", "direct")]
    d = right[0].astype(int) - right[1]
    found = over_seeds_and_images(*gram_of(d), np.ones((1, 2), bool), IMAGES)
    assert (row.seeds, row.images, row.basis) == (2, IMAGES, "seeds and test images")
    assert (row.keys_a, row.keys_b) == (["gac-1", "gac-2"], ["direct-1", "direct-2"])
    assert row.accuracy_a - row.accuracy_b == pytest.approx(row.accuracy_delta)
    assert row.accuracy_delta == pytest.approx(d.mean())
    assert row.delta_high - row.delta_low == pytest.approx(2 * found.half_width()[0])
    assert row.delta_high + row.delta_low == pytest.approx(2 * d.mean())
    assert row.p == pytest.approx(found.p_values()[0])
    assert (row.bootstrap_low, row.bootstrap_high) == bootstrap_interval(d)
    only_a, only_b = ((d == sign).sum(1).tolist() for sign in (1, -1))
    assert (row.only_a, row.only_b) == (only_a, only_b)
    assert row.odds_ratio == pytest.approx(sum(only_a) / sum(only_b))
    assert row.mcnemar_p == [mcnemar(*n) for n in zip(only_a, only_b, strict=True)]
    means = d.mean(1)
    assert row.d_z == pytest.approx(means.mean() / means.std(ddof=1))


def test_accuracies_and_energies_are_paired_over_the_shared_seeds() -> None:
    table = compare(
        frame(
            *runs("gac", (0.80, 0.84, 0.10), **GAC, selected_accuracy=0.7),
            *runs("direct", (0.79, 0.80), selected_accuracy=0.75),
        ),
        ["gac", "direct"],
    )
    (row,) = table.itertuples()
    assert (row.seeds, row.basis) == (2, "seeds")
    assert (row.accuracy_a, row.accuracy_b) == pytest.approx((0.82, 0.795))
    assert row.accuracy_delta == pytest.approx(0.025)
    assert row.selected_delta == pytest.approx(-0.05)
    assert row.energy_delta_uj == pytest.approx(0.46)  # 4.6 pJ x 1e5
    assert (row.energy_convention, row.technology) == ("exact", "45nm-fp32")


def test_swapped_codings_have_swapped_signs_and_the_same_p() -> None:
    cells = made({"gac": 0.9, "direct": 0.8})
    (one,), (other,) = of(["gac", "direct"], cells), of(["direct", "gac"], cells)
    assert one.p == pytest.approx(other.p)
    assert one.accuracy_delta == pytest.approx(-other.accuracy_delta)
    assert (one.delta_low, one.delta_high) == pytest.approx((-other.delta_high, -other.delta_low))
    assert (one.only_a, one.only_b) == (other.only_b, other.only_a)
    assert verdict(one).startswith("gac is better than direct at T=4 by ")
    assert verdict(one) == verdict(other)


def test_identical_predictions_do_not_differ_in_any_way() -> None:
    cells, answers = made({"gac": 0.9})
    twin = cells.assign(encoder="twin", key="twin-" + cells["seed"].astype(str))
    answers |= {f"twin-{seed}": answers[f"gac-{seed}"] for seed in range(3)}
    (row,) = of(["gac", "twin"], (pd.concat([cells, twin], ignore_index=True), answers))
    assert (row.p, row.p_holm, row.delta_low, row.delta_high) == (1, 1, 0, 0)
    assert (row.bootstrap_low, row.bootstrap_high) == (0, 0)
    assert row.mcnemar_p == [1, 1, 1] and pd.isna(row.d_z) and pd.isna(row.odds_ratio)
    assert (
        "at T=4 is not significant: +0.00 points for gac (95 % confidence interval +0.00"
        in verdict(row)
    )


def test_holms_family_is_all_comparisons_of_the_command() -> None:
    cells, answers = made({"a": 0.9, "b": 0.88, "c": 0.5})
    more, others = made({"a": 0.9, "b": 0.6}, generator=1, num_steps=8)
    more["key"] = more["key"] + "-8"
    answers |= {f"{key}-8": found for key, found in others.items()}
    table = compare(
        pd.concat([cells, more], ignore_index=True), ["a", "b", "c"], answers=lambda few: answers
    )
    pairs = [f"{row.num_steps}{row.encoder_a}{row.encoder_b}" for row in table.itertuples()]
    assert pairs == ["4ab", "4ac", "4bc", "8ab"]
    assert set(table["comparisons"]) == {4}
    ordered = table.sort_values("p")
    assert ordered["p_holm"].iloc[0] == pytest.approx(4 * ordered["p"].iloc[0])
    assert ordered["p_holm"].iloc[3] == pytest.approx(ordered["p"].iloc[3])


@pytest.mark.parametrize(
    ("change", "is_mixed"),
    [
        ({"encoder_code": "e2"}, False),  # of all of gac's seeds: its code is its own
        ({"recipe_hash": "r2"}, True),
        ({"backbone_code": "b2"}, True),
    ],
)
def test_codings_run_by_different_code_are_marked(change: dict[str, str], is_mixed: bool) -> None:
    cells = frame(*runs("gac", (0.8, 0.9), **change), *runs("direct", (0.7, 0.8)))
    table = compare(cells, ["gac", "direct"])
    assert table["mixed_code"].tolist() == [is_mixed]
    assert ("§ Not all cells were run with the same code" in printed(table)) is is_mixed


def test_a_claim_names_the_better_one_with_its_price_whichever_is_named_first() -> None:
    text = said(*runs("gac", (0.80, 0.81, 0.82)), *runs("direct", (0.901, 0.911, 0.931), **GAC))
    # differences 10.1, 10.1, 11.1: mean 10.43, standard error 1/3; t of 2 is 4.3027
    assert text == (
        "direct is better than gac at T=4 by 10.43 points (95 % confidence interval +9.00 to "
        "+11.87; p = 0.001; 3 seeds only, because predictions are missing), for 0.460 µJ more per "
        "image than gac"
    )


def test_a_difference_that_is_not_significant_comes_with_the_seeds_that_a_point_would_take() -> (
    None
):
    text = said(*runs("gac", (0.80, 0.84)), *runs("direct", (0.80, 0.82)))
    # differences 0 and 2: mean 1, standard error 1, t of 1 is 12.7062; p = 2 atan(1) / pi
    assert text.startswith(
        "The difference between gac and direct at T=4 is not significant: +1.00 points for gac (95 "
        "% confidence interval -11.71 to +13.71; p = 0.500; 2 seeds only, because predictions are "
        "missing); "
    )
    # sqrt 2 points of deviation: t of 9 is 2.2622, of 10 is 2.2281
    assert text.endswith("; about 11 seeds would narrow the interval to ±1 point")
    close = said(*runs("gac", (0.800, 0.801, 0.802)), *runs("direct", (0.801, 0.801, 0.801)))
    assert close.endswith(
        "3 seeds only, because predictions are missing)"
    )  # it is narrower than a point


def test_where_the_test_images_limit_the_interval_no_number_of_seeds_is_promised() -> None:
    draws = np.random.default_rng(3)
    gains = draws.random(IMAGES) < 0.1  # the same images in every seed
    losses = ~gains & (draws.random(IMAGES) < 0.1)
    right = {"gac": ~losses, "direct": ~gains}
    cells = [cell(n, s, right[n].mean(), images=IMAGES) for n in right for s in range(3)]
    answers = {
        c["key"]: Predictions(np.zeros(IMAGES, np.int16), right[c["encoder"]]) for c in cells
    }
    (row,) = of(["gac", "direct"], (frame(*cells), answers))
    d = right["gac"].astype(float) - right["direct"]
    floor = 1.9659 * d.std(ddof=1) / IMAGES**0.5  # t of 399
    assert row.images_floor == pytest.approx(floor, rel=1e-4)
    assert verdict(row).endswith(
        "; no number of seeds narrows the interval to ±1 point, because the test images alone "
        f"leave ±{100 * floor:.2f} points"
    )


def test_one_seed_allows_a_verdict_on_its_two_networks_only() -> None:
    (far,) = of(["gac", "direct"], made({"gac": 0.9, "direct": 0.5}, seeds=1))
    assert pd.isna(far.p) and pd.isna(far.delta_low) and pd.isna(far.d_z)
    (only_a,), (only_b,) = far.only_a, far.only_b
    assert verdict(far) == (
        "One seed allows no conclusion about gac and direct at T=4; of its two networks, that of "
        f"gac is better ({only_a} images that only gac classifies correctly, {only_b} only direct; "
        "McNemar p < 0.001)"
    )
    (near,) = of(["gac", "direct"], made({"gac": 0.9, "direct": 0.9}, seeds=1))
    assert "; its two networks do not differ significantly (" in verdict(near)
    assert said(cell("gac", 0, 0.9), cell("direct", 0, 0.8)) == (
        "One seed allows no conclusion about gac and direct at T=4; without predictions, its two "
        "networks cannot be compared either"
    )


def test_without_a_shared_seed_there_is_nothing_to_compare() -> None:
    text = said(cell("gac", 0, 0.9), cell("direct", 1, 0.8))
    assert text == "gac and direct have no seed in common at T=4, so they cannot be compared"


def test_a_cell_without_an_accuracy_is_not_compared() -> None:
    text = said(*runs("gac", (0.9, float("nan"))), *runs("direct", (0.8, 0.7)))
    assert text.startswith("One seed allows no conclusion about gac and direct")


@pytest.mark.parametrize(
    "elsewhere", [{"num_steps": 8}, {"backbone": "resnet18"}, {"epochs": 300}, {"dataset": "mnist"}]
)
def test_only_cells_of_the_same_group_and_t_are_compared(elsewhere: dict[str, Any]) -> None:
    cells = frame(cell("gac", 0, 0.9), cell("direct", 0, 0.8, **elsewhere))
    with pytest.raises(SpecError, match="no two of gac, direct have cells of the same T, data set"):
        compare(cells, ["gac", "direct"])


KNOWN = ["direct", "direct[spiking=false]", "rate[gain=0.5]", "rate"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["direct", "rate[gain=0.5]"], ["direct", "rate[gain=0.5]"]),
        (["rate[ gain = 0.5 ]", "direct"], ["rate[gain=0.5]", "direct"]),
        (["rate[gain=0.50]", "direct"], ["rate[gain=0.5]", "direct"]),
        (["rate[gain=1]", "direct[spiking=False]"], ["rate", "direct[spiking=false]"]),
    ],
)
def test_a_coding_is_named_as_for_a_run(names: list[str], expected: list[str]) -> None:
    assert labels(names, KNOWN) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["direct", "rat"], "unknown coding in these results 'rat'; did you mean 'rate'"),
        (["direct", "gac"], r"unknown coding in these results 'gac' .*\(known: direct, "),
        (["direct", "rate[gain=0.25]"], r"'rate\[gain=0.25\]'; did you mean 'rate\[gain=0.5\]'"),
        (["direct", "rate[gian=1]"], "unknown parameter of encoder rate 'gian'; did you mean"),
        (["direct", "rate[gain]"], "expected param=value"),
        (["direct", "none.py:Mine"], "no file 'none.py'"),
        (["direct"], "expected at least two codings to compare, got 'direct'"),
        (["rate", "direct", "rate[gain=1]"], "expected different codings, got 'rate' twice"),
    ],
)
def test_a_coding_without_results_is_named(names: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("'gac' .*", "'gac'.*")) as caught:
        labels(names, KNOWN)
    assert "\n" not in str(caught.value)


def test_the_limits_of_an_interval_are_differences_that_accuracies_can_have() -> None:
    cells = [*runs("gac", (0.9, 0.1)), *runs("direct", (0.1, 0.9))]
    (row,) = compare(frame(*cells), ["gac", "direct"]).itertuples()
    assert (row.delta_low, row.delta_high) == (-1.0, 1.0)


def test_a_seed_that_collapsed_is_named_with_what_it_means_for_the_interval() -> None:
    cells = [*runs("gac", (0.8, 0.1, 0.8)), *runs("direct", (0.7, 0.7, 0.7))]
    table = compare(frame(*cells), ["gac", "direct"])
    assert (table["collapsed_a"].tolist(), table["collapsed_b"].tolist()) == ([[1]], [[]])
    text = " ".join(printed(table).split())
    assert "gac at T=4: seed 1 collapsed to chance while others learned." in text
    assert "rare collapses of single seeds break their coverage." in text
    calm = [*runs("gac", (0.8, 0.8, 0.8)), *runs("direct", (0.1, 0.1, 0.1))]  # direct never learns
    assert "collapsed" not in printed(compare(frame(*calm), ["gac", "direct"]))
    assert "rare collapses" in printed(compare(frame(*calm), ["gac", "direct"]))


def printed(table: pd.DataFrame, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(view(table)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_format_has_the_numbers_and_the_verdict() -> None:
    cells, answers = made({"gac": 0.9, "direct": 0.5}, generator=2)
    table = compare(cells, ["gac", "direct"], answers=lambda few: answers)
    shown = view(table)
    (row,) = json.loads(to_json(shown.frame))
    assert list(row) == [*COLUMNS, "verdict"]
    assert isinstance(row["seeds"], int) and row["mcnemar_p"] == table["mcnemar_p"][0]
    head, line = to_csv(shown.frame).splitlines()
    assert head == ",".join([*COLUMNS, "verdict"]) and "gac-0 gac-1 gac-2" in line
    assert " ".join(map(str, row["only_a"])) in line
    points = f"{100 * row['accuracy_delta']:+.2f}"
    markdown = to_markdown(shown)
    assert re.search(
        rf"^\| gac \| direct \| 4 \| 3¶ \| .* \| \{points} \| ", markdown, re.MULTILINE
    )
    assert f"- {row['verdict']}\n" in markdown and "| 3 of 3 |" in markdown
    assert points in printed(table)


@pytest.mark.parametrize("width", [80, 100])
def test_both_tables_fit_a_terminal_without_cutting_a_name(width: int) -> None:
    long = "latency[scale=log,threshold=0.05]"
    cells, answers = made({long: 0.9, "direct[spiking=false]": 0.5})
    table = compare(
        cells.assign(effective_real=10**9), [long, "direct[spiking=false]"],
        answers=lambda few: answers,
    )  # fmt: skip
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("threshold=") == 2 + text.count("is better than")
