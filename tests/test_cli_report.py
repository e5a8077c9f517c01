"""``codingbench report``: the page, the figures as files, and one-line errors."""

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import kaleido
import pytest
import typer
from choreographer.browsers.chromium import Chromium
from kaleido.errors import ChromeNotFoundError
from typer.testing import CliRunner, Result

from codingbench.cli.main import main
from codingbench.cli.report import report
from codingbench.energy import Pricing
from codingbench.errors import CodingbenchError, SpecError
from codingbench.report.collecting import collect
from codingbench.report.figure_files import SCALES, WIDTH, save
from codingbench.report.figures.catalogue import FIGURES
from codingbench.store.folder import Store
from tests.report_stores import store_of

app = typer.Typer()
app.command()(report)
app.callback()(lambda: None)  # else the only command is the whole program

needs_browser = pytest.mark.skipif(
    Chromium.find_browser(skip_local=False) is None, reason="no Chrome or Chromium is installed"
)


def invoke(*arguments: object) -> Result:
    run = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["report", *map(str, arguments)])
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run


def refused(*arguments: object) -> str:
    with pytest.raises(CodingbenchError) as caught:
        invoke(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_written_and_its_path_and_size_are_printed(
    results: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("an older page")
    run = invoke("--results", results, "--output", page, "--title", "A & B", "--energy", "paper")
    assert run.stdout == f"{page}: {page.stat().st_size:,} bytes\n" and run.stderr == ""
    text = page.read_text(encoding="utf-8")
    assert "an older page" not in text
    assert "<title>A &amp; B</title>" in text and "gac[heads=2]" in text
    assert '<option value="paper" selected>' in text
    assert len(text) > 1_000_000  # Plotly is inside
    assert not list(tmp_path.glob(".*.tmp"))


def test_only_the_requested_data_set_is_in_the_page(tmp_path: Path) -> None:
    store = store_of(tmp_path / "results", {"dataset": "digits"}, {"dataset": "mnist"})
    page = tmp_path / "page.html"
    invoke("--results", store.folder, "--output", page, "--dataset", "mnist")
    assert (
        "<p>1 finished cell; 1 comparison; mnist; selected by --dataset mnist: "
        in page.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("name", ["page.pdf", "page", "html", "page.html.svg"])
def test_an_output_that_does_not_end_in_html_is_refused(results: Path, name: str) -> None:
    message = refused("--results", results, "--output", results / name)
    assert message.startswith("the report is HTML: output must end in .html, got ")
    assert not (results / name).exists()


def test_a_folder_that_does_not_exist_is_named_in_one_line(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--results", str(results), "--output", str(results / "none" / "page.html")]
    monkeypatch.setattr(sys, "argv", ["codingbench", "report", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ") and "its folder does not exist" in line and "none" in line
    assert said.out == "" and not (results / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--energy", "exakt"], "unknown energy convention 'exakt'; did you mean 'exact'"),
        (["--technology", "fp61"], "unknown technology 'fp61'; did you mean 'fp16'"),
        (["--dataset", "digit"], "'digit'; did you mean 'digits'"),
    ],
)
def test_a_refused_request_does_not_change_the_older_page(
    results: Path, arguments: list[str], message: str
) -> None:
    page = results / "page.html"
    page.write_text("an older page")
    assert message in refused("--results", results, "--output", page, *arguments)
    assert page.read_text() == "an older page"


def test_without_plotly_one_line_says_what_to_install(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    message = refused("--results", results, "--output", results / "page.html")
    assert message == "the report needs plotly: pip install plotly"


def test_the_page_is_written_without_importing_torch(results: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "codingbench", "report"]
    options = ["--results", str(results), "--output", str(results / "page.html")]
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "pandas" in imported and (results / "page.html").exists()
    assert not {"torch", "torchvision", "snntorch", "kaleido"} & imported


def test_the_command_module_loads_without_pandas_and_plotly() -> None:
    code = "import sys, codingbench.cli.report\n"
    code += "assert not {'torch', 'pandas', 'pyarrow', 'plotly'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the figures as files -------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect the requests to kaleido instead of drawing them."""
    requests: list[dict[str, Any]] = []

    def draw(given: list[dict[str, Any]], **options: Any) -> tuple[()]:
        assert options == {"kopts": {"mathjax": False}}  # kaleido would load it from the network
        requests.extend(given)
        return ()

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", draw)
    return requests


def test_each_figure_is_drawn_in_every_format(results: Path, asked: list[Any]) -> None:
    folder = results / "new" / "figures"
    files = save(collect(Store(results)), folder)
    assert [request["path"] for request in asked] == files and folder.is_dir()
    stem = "digits-text-text"
    assert {path.name for path in files} == {
        f"{stem}-{spec.name}.{form}" for spec in FIGURES for form in ("svg", "png")
    }
    assert {request["opts"]["format"]: request["opts"]["scale"] for request in asked} == SCALES
    for request in asked:
        assert request["fig"]["layout"]["width"] == WIDTH == 900


def test_the_figures_use_the_requested_convention(results: Path, asked: list[Any]) -> None:
    save(collect(Store(results), Pricing.of("paper")), results / "figures")
    (pareto,) = (
        request["fig"]["layout"] for request in asked if request["path"].match("*-pareto.svg")
    )
    assert pareto["xaxis"]["title"]["text"] == "energy, µJ per image (paper)"


def test_a_figure_with_a_long_legend_is_high_enough_for_it(
    tmp_path: Path, asked: list[Any]
) -> None:
    store = store_of(tmp_path / "results", *({"encoder": f"c{at:02}"} for at in range(25)))
    save(collect(store), tmp_path)
    layouts = {
        request["path"].stem.split("text-text-")[1]: request["fig"]["layout"] for request in asked
    }
    assert layouts["pareto"]["showlegend"] and layouts["pareto"]["height"] >= 26 * 21
    assert not layouts["firing-rates"]["showlegend"]  # one trace


NAMED_ALIKE: list[tuple[list[dict[str, Any]], set[str]]] = [
    ([{"epochs": 1}, {"epochs": 2}, {"epochs": 3}],
     {"digits-text-text", "digits-text-text-2", "digits-text-text-3"}),
    ([{"recipe": "a b"}, {"recipe": "a/b"}], {"digits-text-a_b", "digits-text-a_b-2"}),
    ([{"recipe": "../../up"}], {"digits-text-_up"}),
    # the second comparison of quick would get the name of another recipe
    ([{"recipe": "quick"}, {"recipe": "quick", "epochs": 2}, {"recipe": "quick-2"}],
     {"digits-text-quick", "digits-text-quick-2", "digits-text-quick-2-2"}),
    ([{"recipe": "Quick"}, {"recipe": "quick"}], {"digits-text-Quick", "digits-text-quick-2"}),
    ([{"recipe": "Quick"}, {"recipe": "Quick", "epochs": 2}],
     {"digits-text-Quick", "digits-text-Quick-2"}),
    ([{"recipe": "x" * 300}, {"recipe": "x" * 300 + "y"}],
     {f"digits-text-{'x' * 88}", f"digits-text-{'x' * 88}-2"}),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "stems"), NAMED_ALIKE)
def test_files_of_two_comparisons_do_not_overwrite_each_other(
    tmp_path: Path, asked: list[Any], cells: list[dict[str, Any]], stems: set[str]
) -> None:
    files = save(collect(store_of(tmp_path / "results", *cells)), tmp_path)
    assert len({str(path).lower() for path in files}) == len(files)
    assert {path.parent for path in files} == {tmp_path}
    assert {path.stem.removesuffix("-pareto") for path in files if "pareto" in path.name} == stems


def raising(error: Exception) -> Callable[..., None]:
    def draw(*_: Any, **__: Any) -> None:
        raise error

    return draw


def test_without_a_browser_one_line_says_what_to_install(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", raising(ChromeNotFoundError("no")))
    message = refused(
        "--results", results, "--output", results / "page.html", "--figures", results / "figures"
    )
    assert message == (
        "--figures needs Chrome or Chromium: install one, or set BROWSER_PATH to its path"
    )


def test_without_kaleido_one_line_says_what_to_install(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    page = results / "page.html"
    message = refused("--results", results, "--output", page, "--figures", results / "figures")
    assert message == "--figures needs kaleido: pip install 'codingbench[report]'"
    assert not (results / "figures").exists()


def test_a_figure_that_cannot_be_drawn_is_an_error(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = (ValueError("first"), ValueError("second"))
    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", lambda *_, **__: failed)
    message = refused(
        "--results", results, "--output", results / "page.html", "--figures", results / "figures"
    )
    assert message == "2 figures could not be drawn: first"


@needs_browser
def test_a_program_that_is_not_a_browser_is_refused_in_one_line(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/true")
    with pytest.raises(CodingbenchError) as caught:
        save(collect(Store(results)), results / "figures")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, SpecError)


@needs_browser
def test_the_files_are_drawings_with_the_names_as_text(tmp_path: Path) -> None:
    names = ("gac[heads=2]", "%{x}", "<b>x</b>")
    cells = [{"encoder": name, "seed": seed} for name in names for seed in (0, 1)]
    store = store_of(tmp_path / "results", *cells)
    page, folder = tmp_path / "page.html", tmp_path / "figures"
    run = invoke("--results", store.folder, "--output", page, "--figures", folder)
    files = sorted(folder.iterdir())
    assert {path.suffix for path in files} == {".svg", ".png"}
    assert len(files) == 2 * len(FIGURES)
    lines = run.stdout.splitlines()
    assert sorted(lines[1:]) == [f"{path}: {path.stat().st_size:,} bytes" for path in files]
    for path in files:
        data = path.read_bytes()
        if path.suffix == ".png":
            width, height = struct.unpack(">II", data[16:24])
            assert data.startswith(b"\x89PNG\r\n\x1a\n") and width == 1800 and height > 300
        else:
            words = "".join(ElementTree.fromstring(data).itertext())
            assert all(name in unescape(words) for name in names), path.name
            assert not re.findall(rb"<script|\son\w+=", data)
