"""The report in a real browser: loading, display, sorting, filters and resistance to hostile names.

Needs Chrome or Chromium and is skipped without.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from axe_playwright_python.sync_playwright import Axe
from bench_store import make_store
from playwright.sync_api import Browser, Page, expect, sync_playwright

from codingbench.report.writing import write
from codingbench.schema import TABLES
from codingbench.store.folder import RESULT_TABLES, Store

pytestmark = pytest.mark.thorough  # a page takes seconds in a browser

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
HOSTILE = {
    "gac": "</script><script>document.title='taken'</script>",
    "direct": "<img src=x onerror=\"document.title='taken'\">",
    "rate": "<b>%{x}</b>&lt;i&gt;",
    "latency": "__proto__",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = chromium.find()
    if found is None:
        pytest.skip("needs Chrome or Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=chromium.QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the pages of real runs; return their folder."""
    folder = tmp_path_factory.mktemp("reports")
    for name in ("field", "fashion_mini", "cifar100"):
        write(Store(REFERENCE / name), folder / f"{name}.html")
    return folder


class Seen:
    """An open page with its console messages and requests."""

    def __init__(self, browser: Browser, path: Path, **context: Any) -> None:
        size = {"width": 1280, "height": 900}
        self.context = browser.new_context(**{"viewport": size} | context)
        self.context.set_default_timeout(5_000)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def __enter__(self) -> "Seen":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def column(self, heading: str) -> list[str]:
        """Return the texts of a column of the leaderboard."""
        headings = self.page.locator("#rows thead th").all_inner_texts()
        place = next(i for i, text in enumerate(headings) if text.strip().startswith(heading))
        rows = self.page.locator("#rows tbody tr:not(.details)")
        return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]

    def drawn(self, name: str) -> Any:
        """Scroll to the figure, which draws it, and return it."""
        plot = self.page.locator(f"#plot-{name}")
        plot.scroll_into_view_if_needed()
        expect(plot.locator(".main-svg").first).to_be_visible()
        return plot

    def figures(self) -> list[str]:
        """Return the names of all figures."""
        names = self.page.locator("figure[data-name]").evaluate_all(
            "figures => figures.map(figure => figure.dataset.name)"
        )
        return list(map(str, names))

    def sort_by(self, heading: str) -> None:
        self.page.get_by_role("button", name=heading, exact=True).click()


def percent(text: str) -> float:
    return float(text.split()[0])


def test_a_page_draws_every_figure_without_an_error_or_a_request(
    browser: Browser, made: Path
) -> None:
    with Seen(browser, made / "field.html") as seen:
        for name in seen.figures():
            seen.drawn(name)
        assert len(seen.figures()) == 8
        assert seen.said == [] and seen.asked == [seen.url]
        assert seen.page.locator("#rows tbody tr").count() == 29


def test_nothing_is_loaded_even_if_a_script_asks(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "fashion_mini.html") as seen:
        outcome = seen.page.evaluate("fetch('http://127.0.0.1:9/').catch(error => 'refused')")
        assert outcome == "refused" and "Content Security Policy" in seen.said[0]
        assert seen.asked == [seen.url]


def test_a_press_on_a_heading_sorts_by_it_and_a_second_press_reverses_the_order(
    browser: Browser, made: Path
) -> None:
    with Seen(browser, made / "field.html") as seen:
        accuracies = [percent(text) for text in seen.column("accuracy")]
        assert accuracies == sorted(accuracies, reverse=True)
        seen.sort_by("modelled µJ/image exact")
        energies = [float(text) for text in seen.column("modelled")]
        assert energies == sorted(energies) and energies[0] == 8.95 and energies[-1] == 55.3
        sorted_by = seen.page.locator("#rows th[aria-sort]")
        assert sorted_by.get_attribute("aria-sort") == "ascending"
        seen.sort_by("modelled µJ/image exact")
        assert [float(text) for text in seen.column("modelled")] == energies[::-1]
        assert sorted_by.get_attribute("aria-sort") == "descending"
        seen.sort_by("encoder")
        names = seen.column("encoder")
        assert names == sorted(names) and names[0] == "bitplane"


def test_the_convention_switch_changes_energies_order_and_figures(
    browser: Browser, made: Path
) -> None:
    with Seen(browser, made / "field.html") as seen:
        seen.sort_by("modelled µJ/image exact")
        gac = seen.column("encoder").index("gac")
        assert gac == 25 and seen.column("modelled")[gac] == "36.2"
        seen.drawn("pareto"), seen.drawn("bill")
        before = seen.page.locator("#plot-bill").inner_text()
        seen.page.get_by_label("Energy convention").select_option("paper")
        assert seen.page.locator("#rows thead").inner_text().count("modelled µJ/image paper") == 1
        gac = seen.column("encoder").index("gac")
        energies = [float(text) for text in seen.column("modelled")]
        assert energies == sorted(energies) and energies[gac] == 4.07 and gac < 17
        assert "first layer once" in seen.page.locator("#energy").inner_text()
        for name in ("pareto", "bill", "anytime-energy"):
            assert "(paper)" in seen.drawn(name).inner_text()
        assert seen.page.locator("#plot-bill").inner_text() != before


def test_filters_keep_the_same_rows_in_table_and_figures(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "cifar100.html") as seen:
        lines = "#plot-anytime-accuracy .scatterlayer .trace"
        seen.drawn("anytime-accuracy")
        assert seen.page.locator(lines).count() == 6
        seen.page.get_by_role("combobox", name="T", exact=True).select_option("4")
        assert seen.column("T") == ["4", "4"] and seen.page.locator(lines).count() == 2
        seen.page.get_by_label("Coding contains").fill("GAC")
        assert seen.column("encoder") == ["gac"] and seen.page.locator(lines).count() == 1
        status = seen.page.get_by_role("status")
        assert status.inner_text().startswith("1 of 6 rows shown")
        seen.page.get_by_label("Coding contains").fill("nothing like it")
        assert seen.column("encoder") == [] and seen.page.locator(lines).count() == 0
        seen.page.get_by_label("Coding contains").fill("")
        seen.page.get_by_role("combobox", name="T", exact=True).select_option("")
        seen.page.get_by_role("button", name="gac", pressed=True).click()
        assert seen.column("encoder") == ["direct"] * 3 and seen.page.locator(lines).count() == 3
        seen.page.get_by_role("button", name="gac", pressed=False).click()
        assert len(seen.column("encoder")) == 6
        assert seen.said == []


def test_the_heat_map_and_the_bars_lose_filtered_rows(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "field.html") as seen:
        seen.page.get_by_label("Coding contains").fill("latency")
        for name in ("firing-rates", "bill"):
            labels = seen.drawn(name).locator("g.ytick text").all_text_contents()
            assert len(labels) == 5 and all("latency" in label for label in labels)
        points = seen.drawn("pareto").locator(".scatterlayer .points path")
        assert points.count() == 5


def test_a_press_on_a_coding_shows_the_command_that_reproduces_it(
    browser: Browser, made: Path
) -> None:
    with Seen(browser, made / "field.html") as seen:
        button = seen.page.locator("#rows tbody").get_by_role("button", name="gac", exact=True)
        assert button.get_attribute("aria-expanded") == "false"
        button.click()
        command = seen.page.locator("tr.details pre").inner_text()
        assert command.startswith("codingbench run --encoders gac --backbones csnn")
        assert "--seeds 0,1,2 " in command and "--no-compile" in command
        assert "commit" in seen.page.locator("tr.details").inner_text()
        button.click()
        assert seen.page.locator("tr.details").count() == 0


def test_a_long_leaderboard_is_shown_a_page_at_a_time_and_sorted_whole(
    browser: Browser, made: Path
) -> None:
    with Seen(browser, made / "field.html") as seen:
        seen.page.evaluate("state.limit = 5, show()")
        assert len(seen.column("encoder")) == 5
        seen.sort_by("encoder")
        assert seen.column("encoder")[0] == "bitplane"  # not among the five best
        assert seen.page.locator("#more").inner_text() == "24 more rows show 24 more"
        seen.page.get_by_role("button", name="show 24 more").click()
        assert len(seen.column("encoder")) == 29 and seen.page.locator("#more").inner_text() == ""


def test_the_numbers_of_a_figure_can_be_read_as_a_table(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "cifar100.html") as seen:
        figure = seen.page.locator("figure[data-name=anytime-accuracy]")
        figure.get_by_text("Numbers").click()
        lines = figure.locator("details tbody tr")
        expect(lines).to_have_count(2 * (2 + 4 + 6))
        assert lines.first.inner_text().split("\t") == ["gac, T=6", "1", "22.81"]
        heat = seen.page.locator("figure[data-name=firing-rates]")
        heat.get_by_text("Numbers").click()
        expect(heat.locator("details thead")).to_contain_text("backbone.head.neuron t=6")
        assert heat.locator("details tbody tr").count() == 6


def test_a_figure_is_saved_on_white_with_its_legend(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    with Seen(browser, made / "cifar100.html", color_scheme="dark") as seen:
        seen.drawn("pareto")
        figure = seen.page.locator("figure[data-name=pareto]")
        for form in ("svg", "png"):
            with seen.page.expect_download() as download:
                figure.get_by_role("button", name=f"Save as {form.upper()}").click()
            assert download.value.suggested_filename == f"pareto.{form}"
            download.value.save_as(tmp_path / form)
        svg = (tmp_path / "svg").read_text()
        assert ">gac</text>" in svg and ">front</text>" in svg and "rgb(255, 255, 255)" in svg
        assert (tmp_path / "png").read_bytes().startswith(b"\x89PNG")
        assert seen.said == []


def test_the_page_can_be_used_with_the_keyboard_alone(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "cifar100.html") as seen:
        focused = "document.activeElement"

        def tab_to(what: str) -> None:
            for _ in range(60):
                seen.page.keyboard.press("Tab")
                if seen.page.evaluate(f"{focused}.matches({what!r})"):
                    return
            raise AssertionError(f"no way to {what} by Tab")

        tab_to(".skip")
        tab_to("#convention")
        seen.page.keyboard.press("p")  # the first option that begins with p
        assert "modelled µJ/image paper" in seen.page.locator("#rows thead").inner_text()
        tab_to("#swatches button:nth-child(2)")
        seen.page.keyboard.press("Enter")
        assert seen.column("encoder") == []
        assert seen.page.evaluate(f"{focused}.textContent") == "none"  # the focus stays
        seen.page.keyboard.press("Shift+Tab")
        seen.page.keyboard.press("Enter")
        tab_to("#swatches button[aria-pressed]")
        seen.page.keyboard.press("Space")
        assert seen.column("encoder") == ["gac"] * 3
        seen.page.keyboard.press("Space")
        tab_to("thead button[data-field=energy_uj]")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate(f"{focused}.dataset.field") == "energy_uj"  # the focus stays
        assert seen.page.locator("#rows th[aria-sort]").count() == 1
        tab_to("tbody button")
        seen.page.keyboard.press("Enter")
        assert seen.page.locator("tr.details").count() == 1
        assert seen.page.evaluate(f"{focused}.getAttribute('aria-expanded')") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_audit_finds_no_violation(
    browser: Browser, made: Path, scheme: str
) -> None:
    with Seen(browser, made / "cifar100.html", color_scheme=scheme, bypass_csp=True) as seen:
        for name in seen.figures():
            seen.drawn(name)
        seen.page.locator("#rows tbody button").first.click()
        seen.page.get_by_text("Numbers").first.click()
        found = Axe().run(seen.page)
        assert found.violations_count == 0, found.generate_report()


def test_dark_mode_is_dark_and_follows_a_change(browser: Browser, made: Path) -> None:
    with Seen(browser, made / "cifar100.html", color_scheme="dark") as seen:
        seen.drawn("pareto")
        body, title = seen.page.locator("body"), seen.page.locator("#plot-pareto .xtitle")
        expect(body).to_have_css("background-color", "rgb(20, 23, 28)")
        expect(title).to_have_css("fill", "rgb(231, 233, 236)")
        seen.page.emulate_media(color_scheme="light")
        expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
        expect(title).to_have_css("fill", "rgb(32, 36, 42)")


@pytest.mark.parametrize("name", ["field", "cifar100"])
def test_a_phone_scrolls_the_page_only_vertically(browser: Browser, made: Path, name: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    with Seen(browser, made / f"{name}.html", **phone) as seen:
        for figure in seen.figures():
            seen.drawn(figure)
        seen.page.locator("#rows tbody button").first.tap()
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 360
        assert seen.page.evaluate("innerWidth") == 360
        command = seen.page.locator("tr.details pre").bounding_box()
        assert command and command["width"] <= 340
        # dragging a finger over a figure must scroll the page, not zoom the figure
        assert seen.page.evaluate("document.getElementById('plot-pareto').layout.dragmode") is False


def test_hostile_names_are_shown_literally_and_never_executed(
    browser: Browser, tmp_path: Path
) -> None:
    store = renamed(Store(REFERENCE / "fashion_mini"), tmp_path / "store", HOSTILE)
    write(store, tmp_path / "report.html", title="<i>mine</i>")
    with Seen(browser, tmp_path / "report.html") as seen:
        for name in seen.figures():
            seen.drawn(name)
        assert sorted(set(seen.column("encoder"))) == sorted(HOSTILE.values())
        for encoder in HOSTILE.values():
            assert seen.page.get_by_role("button", name=encoder, exact=True).count() == 2
        assert HOSTILE["gac"] in seen.page.locator("#plot-bill").inner_text()
        assert HOSTILE["rate"] in seen.page.locator("#plot-firing-rates").inner_text()
        figure = seen.page.locator("figure[data-name=pareto]")
        figure.get_by_text("Numbers").click()
        for encoder in HOSTILE.values():
            expect(figure.locator("details")).to_contain_text(encoder)
        assert seen.page.title() == "<i>mine</i>"
        assert seen.page.locator("img, b, i, iframe, object, embed").count() == 0
        assert seen.said == [] and seen.asked == [seen.url]


def renamed(store: Store, folder: Path, names: dict[str, str]) -> Store:
    """Return a copy of the store with other names of codings."""
    copy = Store(folder)
    tables = {name: store.read(name) for name in ("cells", *RESULT_TABLES)}
    for frame in tables.values():
        if "encoder" in frame:
            frame["encoder"] = frame["encoder"].replace(names)
    for key in tables["cells"]["key"]:
        own = {name: frame[frame["key"] == key] for name, frame in tables.items()}
        copy.commit(key, {name: arrow(name, frame) for name, frame in own.items()})
    return copy


def arrow(table: str, frame: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, TABLES[table], preserve_index=False)


@pytest.mark.thorough
def test_a_page_of_ten_thousand_cells_loads_in_three_seconds(
    browser: Browser, tmp_path: Path
) -> None:
    make_store(tmp_path / "store", 10_000)
    write(Store(tmp_path / "store"), tmp_path / "report.html")
    # the best of three, because other work on the machine may slow one down
    assert any(0 < loaded_ms(browser, tmp_path / "report.html") <= 3000 for _ in range(3))
    with Seen(browser, tmp_path / "report.html") as seen:
        comparisons = seen.page.get_by_label("Comparison").locator("option")
        assert comparisons.count() == 100
        thinned = r"20 of 20 rows shown\. Curves, .* show 3 of the 20 rows"
        assert re.match(thinned, seen.page.get_by_role("status").inner_text())
        seen.page.get_by_label("Comparison").select_option("99")
        assert seen.column("encoder") and seen.drawn("bill").inner_text().count("coding")
        assert seen.said == []


def loaded_ms(browser: Browser, path: Path) -> float:
    """Return milliseconds until the load event, when the scripts have filled the leaderboard."""
    with Seen(browser, path) as seen:
        end = seen.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        return float(end)
