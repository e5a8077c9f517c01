"""The claims of ``styles.py`` about its colours, measured."""

import re
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from colorspacious import deltaE

from codingbench.report.collecting import collect
from codingbench.report.styles import BACKGROUNDS, COLOURS, Style, styles
from tests.report_stores import Drawn, every_figure, reference, store_of

VISIONS = [None, "protanomaly", "deuteranomaly", "tritanomaly"]


def rgb(colour: str) -> list[float]:
    """Return red, green and blue of ``#rrggbb``, each in [0, 1]."""
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def luminance(colour: str) -> float:
    """Return the relative luminance as defined by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb(colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_in_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # just below 4.5


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_colours_differ_enough_in_every_kind_of_vision(vision: str | None) -> None:
    seen: Any = "sRGB1"
    if vision:
        seen = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
    apart = {
        (one, other): deltaE(rgb(one), rgb(other), input_space=seen, uniform_space="CAM02-UCS")
        for one, other in combinations(COLOURS, 2)
    }
    assert len(apart) == 21
    assert min(apart.values()) >= 15, min(apart, key=apart.__getitem__)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_stands_out_from_both_backgrounds(colour: str, background: str) -> None:
    assert contrast(colour, background) >= 3


def test_the_page_has_the_backgrounds_that_were_measured() -> None:
    style = resources.files("codingbench.report").joinpath("web", "page.css").read_text()
    assert tuple(re.findall(r"--background: (#\w+);", style)) == BACKGROUNDS


def test_56_codings_have_different_styles_and_the_57th_that_of_the_first() -> None:
    names = [f"coding{place:02}" for place in range(57)]
    found = styles(names)
    assert len(set(found.values())) == 56
    assert found["coding56"] != found["coding55"]
    assert found["coding56"] == found["coding00"]


def test_a_style_does_not_depend_on_order_or_repetition() -> None:
    assert styles(["rate", "gac", "rate", "direct"]) == styles(["direct", "gac", "rate"])


def drawn_styles(drawn: Drawn) -> Iterator[tuple[str, Style]]:
    """Yield each coding in the figure with its style there; properties not drawn are empty."""
    encoders = drawn.comparison.rows["encoder"]
    for trace in drawn.figure["data"]:
        if trace["type"] == "bar":
            colours = trace["marker"]["color"]
            for row, colour in zip(trace["customdata"], colours, strict=True):
                yield encoders[row], Style(colour, "", "")
        elif "legendgroup" in trace:
            marker, line = trace["marker"], trace["line"]
            assert marker["color"] == line["color"]
            symbols = marker["symbol"]
            symbols = [symbols] if isinstance(symbols, str) else symbols
            (symbol,) = {symbol.removesuffix("-open") for symbol in symbols}
            yield trace["legendgroup"], Style(marker["color"], symbol, line["dash"])


def test_a_coding_has_the_same_style_in_every_figure_of_a_report() -> None:
    report = reference("field")
    kinds = set()
    for drawn in every_figure(report):
        found = list(drawn_styles(drawn))
        for encoder, style in found:
            expected = report.codings[encoder]
            assert style in (expected, Style(expected.colour, "", "")), drawn.spec.name
        if drawn.spec.name != "firing-rates":  # there, colours show rates
            assert {encoder for encoder, _ in found} == set(drawn.comparison.rows["encoder"])
            kinds.add(drawn.spec.name)
    assert len(kinds) == 7
    assert len(set(report.codings.values())) == len(report.codings) == 29


def test_a_coding_keeps_its_style_in_a_comparison_without_the_others(tmp_path: Path) -> None:
    names = ("direct", "gac", "rate")
    cells = [{"encoder": name} for name in names] + [{"encoder": "rate", "backbone": "other"}]
    report = collect(store_of(tmp_path, *cells))
    first, second = (
        {
            style
            for drawn in every_figure(report)
            for name, style in drawn_styles(drawn)
            if drawn.comparison is comparison and name == "rate"
        }
        for comparison in report.comparisons
    )
    assert first == second and len(first) == 2  # bars show the colour alone
