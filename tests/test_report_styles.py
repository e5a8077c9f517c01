"""What ``styles.py`` claims of its colours, measured."""

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
    """Of ``#rrggbb``, each in [0, 1]."""
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb(colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_measured_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known near miss


@pytest.mark.parametrize("vision", VISIONS)
def test_every_two_colours_are_told_apart_with_any_vision(vision: str | None) -> None:
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


def test_no_two_of_56_codings_look_alike_and_the_57th_is_like_the_first() -> None:
    names = [f"coding{place:02}" for place in range(57)]
    found = styles(names)
    assert len(set(found.values())) == 56
    assert found["coding56"] != found["coding55"]
    assert found["coding56"] == found["coding00"]


def test_a_look_depends_on_the_name_alone_not_on_how_often_or_where_it_comes() -> None:
    assert styles(["rate", "gac", "rate", "direct"]) == styles(["direct", "gac", "rate"])


def drawn_looks(drawn: Drawn) -> Iterator[tuple[str, Style]]:
    """Each coding in the figure with how it is drawn there; what is not drawn is of its style."""
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


def test_a_coding_looks_the_same_in_every_figure_of_a_report() -> None:
    report = reference("field")
    kinds = set()
    for drawn in every_figure(report):
        found = list(drawn_looks(drawn))
        for encoder, style in found:
            expected = report.codings[encoder]
            assert style in (expected, Style(expected.colour, "", "")), drawn.spec.name
        if drawn.spec.name != "firing-rates":  # whose colours are rates
            assert {encoder for encoder, _ in found} == set(drawn.comparison.rows["encoder"])
            kinds.add(drawn.spec.name)
    assert len(kinds) == 7
    assert len(set(report.codings.values())) == len(report.codings) == 20


def test_a_coding_keeps_its_look_in_a_comparison_without_the_others(tmp_path: Path) -> None:
    names = ("direct", "gac", "rate")
    cells = [{"encoder": name} for name in names] + [{"encoder": "rate", "backbone": "other"}]
    report = collect(store_of(tmp_path, *cells))
    first, second = (
        {
            style
            for drawn in every_figure(report)
            for name, style in drawn_looks(drawn)
            if drawn.comparison is comparison and name == "rate"
        }
        for comparison in report.comparisons
    )
    assert first == second and len(first) == 2  # whole in points and lines, the colour in bars
