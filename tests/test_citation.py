"""Citations: codingbench by the version that made the cells, and the sources of what was run."""

from pathlib import Path

import pandas as pd
import pytest

import codingbench
from codingbench.analysis.citation import bibtex, sources
from codingbench.energy import COMPARED, CONVENTIONS, Pricing
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.store.folder import Store
from codingbench.views.asked import Asked
from codingbench.views.leaderboard import present

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def made(*cells: tuple[str | None, str | None]) -> pd.DataFrame:
    frame = pd.DataFrame(list(cells), columns=["codingbench_version", "finished_at"])
    return frame.assign(finished_at=pd.to_datetime(frame["finished_at"], utc=True))


def test_the_entry_has_every_version_that_made_a_cell_and_the_year_of_the_last() -> None:
    cells = made(("0.10.0", "2027-01-02"), ("0.9.0", "2026-05-01"), ("0.9.0", "2026-06-01"))
    assert bibtex(cells) == (
        "@software{codingbench,\n"
        "  author = {{The codingbench developers}},\n"
        "  title = {{codingbench}: a benchmark of input codings of spiking neural networks},\n"
        "  version = {0.9.0, 0.10.0},\n"
        "  year = {2027},\n"
        "}"
    )


@pytest.mark.parametrize("version", [None, "1}, note = {x", "\\input{x}", "1%", "```", ""])
def test_a_version_that_is_none_never_reaches_the_entry(version: str | None) -> None:
    lines = bibtex(made((version, None))).split("\n")
    assert lines[3:] == [f"  version = {{{codingbench.__version__}}},", "}"]


def test_sources_are_those_of_the_files_with_one_of_a_name() -> None:
    found = sources(
        ["rate[gain=2.0]", "rate", "latency", "retina", "../x"],
        ["vgg9", "csnn"],
        ["gac", "mine", "../gac"],
        [Pricing.of("exact", "int8")],
    )
    assert list(found) == [
        "encoder rate",
        "encoder latency",
        "backbone vgg9",  # csnn names no source
        "recipe gac",
        "energy exact",
        "prices 45nm-int8",
    ]
    assert found["encoder rate"] == (
        "the Poisson code of the field in discrete time, one Bernoulli draw per pixel and step; "
        "snntorch.spikegen.rate draws from the same distribution."
    )
    assert found["encoder latency"].startswith("Thorpe, Delorme & Van Rullen")  # Sources:
    assert found["recipe gac"] == load_recipe("gac").source
    assert found["energy exact"] == CONVENTIONS["exact"].source


def test_every_coding_names_its_source() -> None:
    assert sources(ENCODERS.shipped()).keys() == {f"encoder {name}" for name in ENCODERS.shipped()}
    assert "backbone sew_resnet18" in sources([], BACKBONES.shipped())


def test_a_leaderboard_cites_what_it_shows_and_nothing_else() -> None:
    text = present(Store(REFERENCE / "retina"), Asked(energy="all"), form="markdown")
    assert isinstance(text, str)
    cited = [line for line in text.split("### Cite")[1].split("\n") if line.startswith("- ")]
    assert [line[2:].split(":")[0] for line in cited] == [
        "encoder direct",
        "encoder rate",
        "recipe quick",
        *(f"energy {name}" for name in COMPARED),
        "prices 45nm-fp32",
    ]
