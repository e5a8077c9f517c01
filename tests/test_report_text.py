"""The page as text: it is complete, and no name from a result can become HTML or a script."""

import base64
import hashlib
import html
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from codingbench.analysis.commands import commands
from codingbench.report.collecting import collect
from codingbench.report.page import MOST_FAILURES, page, plotly_script
from codingbench.report.provenance import facts
from codingbench.store.folder import Store
from tests.conftest import row
from tests.report_stores import reference, store_of

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&amp;",
    "@PLOTLY@",
    "__proto__",
    "<!--<script>",
    "$& \\u003c",
)
FOLDER = "<b>&amp;"
EXECUTABLE = 2
"""Number of executable scripts: the page's own and Plotly's."""


class Parsed(HTMLParser):
    """A parsed page: its elements with their attributes, and the contents of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words = ""
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        self.words += "\n"
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = attributes, content + data
        elif self.inside != "style":
            self.words += data

    def executable(self) -> list[str]:
        return [content for attributes, content in self.scripts if not attributes]

    def data(self) -> dict[str, Any]:
        """Return the JSON of the page by the id of its script."""
        given = (item for item in self.scripts if item[0])
        return {str(attributes["id"]): json.loads(content) for attributes, content in given}


@cache
def field() -> Parsed:
    return Parsed(page(reference("field"), "the field", plotly_script()))


def failure(number: int, **values: Any) -> tuple[str, dict[str, Any]]:
    key = f"{number:015x}f"
    own = {"dataset": "digits", "encoder": "gac", "num_steps": 4, "seed": 0}
    return key, row("failures", **{**own, "key": key, **values})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of a store in which every name is an attempt to inject HTML or a script."""
    texts = (
        "dataset", "backbone", "recipe", "precision", "encoder_code", "device", "device_name",
        "git_commit", "codingbench_version", "neuron_backend", "torch_version", "uncounted",
    )  # fmt: skip
    cells = [{"encoder": name, **dict.fromkeys(texts, name)} for name in HOSTILE]
    store = store_of(tmp_path_factory.mktemp("results") / FOLDER, *cells)
    for number, name in enumerate(HOSTILE):
        store.record_failure(*failure(number, encoder=name, reason=name, dataset=name))
    return page(collect(store), " ".join(HOSTILE), "const Plotly = 1;")


# --- completeness ---------------------------------------------------------------------------------


def test_every_placeholder_is_filled() -> None:
    text = page(reference("fashion_mini"), "a title", "const Plotly = 1;")
    assert not re.findall(r"@[A-Z]+@", text)
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    assert "<title>a title</title>" in text and "<h1>a title</h1>" in text
    assert "<script>const Plotly = 1;</script>" in text
    assert "<p>12 finished cells; 1 comparison; fashion_mini</p>" in text


def test_placeholders_in_a_title_are_not_filled() -> None:
    text = page(reference("fashion_mini"), "@PLOTLY@ @STYLE@ & <b>", "const Plotly = 1;")
    assert text.count("@PLOTLY@ @STYLE@ &amp; &lt;b&gt;") == 2  # title and heading
    assert text.count("const Plotly = 1;") == 1


def test_the_same_store_gives_the_same_bytes() -> None:
    store = Store(reference("cifar100").folders[0])
    once, again = (page(collect(store), "title", "") for _ in range(2))
    assert once == again


def test_the_commands_of_every_row_are_in_the_page() -> None:
    (comparison,) = reference("field").comparisons
    rows = field().data()["comparison-0"]["reproducing"]
    assert len(rows) == len(comparison.rows) == 29
    cells = comparison.cells.set_index("key", drop=False)
    for keys, found in zip(comparison.rows["keys"], rows, strict=True):
        assert found["keys"] == keys
        assert found["commands"] == commands(cells.loc[keys].to_dict("records"))
        assert "codingbench run --encoders " in found["commands"][0]


def test_every_comparison_has_its_own_data_and_heading(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"recipe": "a"}, {"recipe": "b"}, {"recipe": "b", "seed": 7})
    report = collect(store)
    data = Parsed(page(report, "title", "")).data()
    assert list(data) == ["report", "comparison-0", "comparison-1"]
    headings = [comparison.heading for comparison in report.comparisons]
    assert data["report"]["headings"] == headings
    assert [data[f"comparison-{place}"]["heading"] for place in (0, 1)] == headings
    assert [data[f"comparison-{place}"]["table"]["rows"] for place in (0, 1)] == [[0], [1]]


def test_comparisons_of_the_same_heading_show_their_conditions_in_it(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"batch_size": 8}, {"batch_size": 16}, {"recipe": "z"})
    first, second, third = Parsed(page(collect(store), "title", "")).data()["report"]["headings"]
    assert first.partition("; ")[0] == second.partition("; ")[0]
    assert "batch size 8" in first and "batch size 16" in second and "batch size" not in third


def test_the_scripts_read_only_data_that_the_page_has() -> None:
    own, _ = field().executable()
    data = field().data()
    for name, held in (("report", data["report"]), ("comparison", data["comparison-0"])):
        assert set(re.findall(rf"\b{name}\.(\w+)", own)) <= set(held)


def test_the_table_is_the_leaderboards() -> None:
    (comparison,) = reference("field").comparisons
    data = field().data()["comparison-0"]["table"]
    assert data["encoders"] == comparison.rows["encoder"].tolist()
    columns = {column.get("convention", column["field"]): column for column in data["columns"]}
    accuracy = columns["accuracy"]["values"]
    assert accuracy == pytest.approx(comparison.rows["accuracy"].tolist(), rel=1e-8)
    for name, energies in comparison.energies.items():
        assert columns[name]["heading"] == f"modelled µJ/image {name}"
        found = columns[name]["values"]
        assert found == pytest.approx(energies["energy_uj"].tolist(), rel=1e-8)
        best = [at for at, uj in zip(data["rows"], found, strict=True) if uj == min(found)]
        assert columns[name]["best"] == best


# --- injection ------------------------------------------------------------------------------------


def assert_obeys_nothing(parsed: Parsed, comparisons: int) -> None:
    """Check that the page has no element, attribute or script except its own."""
    kinds = [attributes.get("type") for attributes, _ in parsed.scripts]
    assert kinds == ["application/json"] * (1 + comparisons) + [None] * EXECUTABLE
    for tag, attributes in parsed.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "video", "audio", "svg")
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "href", "action", "formaction"):
            assert attributes.get(name) in (None, "#leaderboard", "data:,"), (tag, attributes)
    policies = [a["content"] for _, a in parsed.elements if "http-equiv" in a]
    assert len(policies) == 1


def test_the_page_of_the_field_loads_nothing() -> None:
    assert_obeys_nothing(field(), comparisons=1)
    style = field().elements
    assert [tag for tag, _ in style].count("style") == 1
    assert not re.findall(r"url\(|@import", page(reference("field"), "t", ""))


def test_the_security_policy_allows_exactly_the_two_executable_scripts() -> None:
    (policy,) = (str(a["content"]) for _, a in field().elements if "http-equiv" in a)
    scripts = field().executable()
    assert len(scripts) == EXECUTABLE
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    }
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert set(rules["script-src"].split()) == hashes
    assert rules["default-src"] == "'none'"
    # a browser reads \r\n as \n, which would change the hash
    assert not any("\r" in script for script in scripts)


def test_hostile_names_are_text_and_nothing_else(hostile: str) -> None:
    parsed = Parsed(hostile)
    assert_obeys_nothing(parsed, comparisons=len(HOSTILE))
    assert parsed.executable()[1] == "const Plotly = 1;"
    assert hostile.count("const Plotly = 1;") == 1
    assert not [mark for mark in ("<script>alert", "<img", "<!--<") if mark in hostile]


def test_hostile_names_are_unchanged_in_the_data(hostile: str) -> None:
    parsed = Parsed(hostile)
    data = parsed.data()
    found = [data[f"comparison-{place}"] for place in range(len(HOSTILE))]
    assert {name for one in found for name in one["table"]["encoders"]} == set(HOSTILE)
    assert set(data["report"]["styles"]) == set(HOSTILE)
    for one in found:
        (name,) = one["table"]["encoders"]
        assert one["heading"].startswith(f"{name}, recipe {name}, ")
        assert dict(one["provenance"])["device name"] == name
        (trace,) = one["figures"]["anytime-accuracy"]["variants"][""]["figure"]["data"]
        assert trace["legendgroup"] == name
        assert html.unescape(trace["name"]) == f"{name}, T=2"


def test_no_json_holds_a_character_that_could_end_its_script(hostile: str) -> None:
    scripts = Parsed(hostile).scripts
    for attributes, content in scripts:
        if attributes:
            assert not {"<", ">", "&"} & set(content)
            assert "\n" not in content


# --- failures -------------------------------------------------------------------------------------


def test_failures_are_listed_as_text_with_the_command_that_shows_more(hostile: str) -> None:
    parsed = Parsed(hostile)
    for number, name in enumerate(HOSTILE):
        assert f"{name}, T=4, seed 0: {name}" in parsed.words
        assert f"codingbench show {number:015x}f --results '" in parsed.words
    assert parsed.words.count(f"/{FOLDER}'") == len(HOSTILE)
    assert f"{len(HOSTILE)} finished cells, {len(HOSTILE)} failed; " in parsed.words


def test_a_failure_without_a_reason_is_listed(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"encoder": "gac"})
    store.record_failure(*failure(1, reason=None))
    words = Parsed(page(collect(store), "title", "")).words
    assert re.search(r"gac, T=4, seed 0:\s+codingbench show 0{14}1f", words)


def test_only_the_first_of_many_failures_are_listed(tmp_path: Path) -> None:
    store = store_of(tmp_path, {"encoder": "gac"})
    for number in range(MOST_FAILURES + 3):
        store.record_failure(*failure(number, reason=f"reason {number:02}."))
    words = Parsed(page(collect(store), "title", "")).words
    assert "reason 49." in words and "reason 50." not in words and "and 3 more" in words


def test_without_failures_their_section_is_left_out() -> None:
    assert "Failed cells" not in field().words


# --- provenance -----------------------------------------------------------------------------------


def provenance(tmp_path: Path, *cells: dict[str, Any]) -> dict[str, str]:
    store = store_of(tmp_path, *(cell | {"seed": seed} for seed, cell in enumerate(cells)))
    return dict(facts(store.read("cells")))


def test_a_shared_value_is_given_once_and_differing_values_are_counted(tmp_path: Path) -> None:
    versions: list[dict[str, Any]] = [
        {"torch_version": "2.8.0", "threads": 8, "git_dirty": True, "wall_s": 3600.0},
        {"torch_version": "2.9.0", "threads": None, "git_dirty": None, "wall_s": 1800.0},
        {"torch_version": "2.9.0", "threads": 8, "git_dirty": False, "wall_s": 0.0},
        {"torch_version": None, "threads": 4, "git_dirty": True, "wall_s": 0.0},
    ]
    same = {"python_version": "3.12.1", "cuda_version": None, "deterministic": True}
    found = provenance(tmp_path, *(version | same for version in versions))
    assert found["cells"] == "4"
    assert found["Python"] == "3.12.1"
    assert found["torch"] == "2.9.0 (2 cells); 2.8.0 (1 cell); unknown (1 cell)"
    assert found["CPU threads"] == "8 (2 cells); 4 (1 cell); unknown (1 cell)"
    assert found["only deterministic kernels"] == "True"
    assert found["run from a checkout with uncommitted changes"] == "2 cells"
    assert found["training and measuring"] == "1.50 hours in total"
    assert found["finished"] == "2026-01-02 00:00 to 2026-01-02 00:00 UTC"
    assert "CUDA" not in found  # unknown for every cell


def test_at_most_six_values_are_shown(tmp_path: Path) -> None:
    found = provenance(tmp_path, *({"device_name": f"gpu{number}"} for number in range(9)))
    shown = found["device name"]
    assert shown.count("(1 cell)") == 6 and shown.endswith("; and 3 more values")


def test_facts_that_no_cell_has_are_left_out(tmp_path: Path) -> None:
    found = provenance(tmp_path, {"finished_at": None, "git_dirty": None, "git_commit": None})
    assert {"finished", "run from a checkout with uncommitted changes", "commit"}.isdisjoint(found)
    assert pd.notna(list(found.values())).all()


def test_the_page_has_the_provenance_of_each_comparison() -> None:
    (comparison,) = reference("field").comparisons
    found = field().data()["comparison-0"]["provenance"]
    assert dict(found) == dict(facts(comparison.cells))
    assert dict(found)["cells"] == "87"


def test_the_page_says_what_to_cite() -> None:
    words = field().words.splitlines()
    assert "@software{codingbench," in words
    assert {"encoder gac", "encoder latency", "encoder phase"} <= set(words)
    assert {"recipe quick", "energy paper", "prices 45nm-fp32"} <= set(words)
