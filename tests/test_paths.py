"""Paths that users write: ``~`` and relative paths, on the command line and in files."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import codingbench as cb
from codingbench.cells.settings import parse_settings
from codingbench.cli.main import app
from codingbench.datasets.catalogue import photo_root
from codingbench.energy import Pricing
from codingbench.errors import DatasetError, SpecError
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import ENCODERS
from codingbench.runtime.paths import user_path
from codingbench.runtime.toml_files import read_toml
from codingbench.schema import TABLES
from codingbench.store.folder import Store
from tests.conftest import commit

SHIPPED = Path(__file__).parents[1] / "codingbench" / "recipes" / "quick.toml"
RUN = ["run", "--encoders", "direct", "--T", "1", "--epochs", "1", "--batch-size", "20"]
RUN += ["--train-samples", "40", "--test-samples", "20", "--device", "cpu", "--workers", "1"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder; commands run in another one."""
    (home := tmp_path / "home").mkdir()
    (work := tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(work)
    return home


def test_a_run_whose_results_begin_with_a_tilde(home: Path) -> None:
    done = CliRunner().invoke(app, [*RUN, "--results=~/r5"])
    assert done.exit_code == 0, done.output
    assert len(Store(home / "r5").finished()) == 1
    assert not Path("~").exists()
    shown = CliRunner().invoke(app, ["verify", "--results=~/r5"])
    assert (shown.exit_code, shown.output) == (0, "1 cell, all files intact\n")


def test_paths_in_a_file_of_settings(home: Path) -> None:
    settings = parse_settings({"results": "~/r5", "data_dir": "~/data"})
    assert settings.results == home / "r5" and settings.grid.data_dir == home / "data"
    settings = parse_settings({"results": "r5", "data_dir": "data"})
    assert settings.results == Path.cwd() / "r5" and settings.grid.data_dir == Path.cwd() / "data"


def test_every_command_expands_its_paths(home: Path) -> None:
    for seed in (0, 1):
        commit(Store(home / "a"), f"aaaa{seed}111aaaa1111", seed=seed)
    (home / "new").mkdir()
    (home / "grid.toml").write_text('encoders = "direct"\nresults = "~/a"\n')
    for words in (
        ["leaderboard", "--results=~/a"],
        ["show", "aaaa0111", "--results=~/a"],
        ["merge", "~/a", "--into", "~/b"],
        ["compact", "--results", "~/b"],
        ["verify", "--results", "~/b"],
        ["run", "--config=~/grid.toml", "--dry-run"],
        ["new", "encoder", "my_coding", "--folder=~/new"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output)
    assert (home / "new" / "my_coding.py").is_file()
    assert len(cb.load("~/b")) == 2 and not Path("~").exists()


def test_names_that_are_paths_may_begin_with_a_tilde(home: Path) -> None:
    (home / "mine.toml").write_bytes(SHIPPED.read_bytes())
    assert load_recipe("~/mine.toml").name == "mine"
    code = "from codingbench.encoders.direct import DirectEncoder\nclass Mine(DirectEncoder): ..."
    (home / "mine.py").write_text(code)
    assert ENCODERS.resolve("~/mine.py:Mine").label == "Mine"
    energy = "from codingbench.energy import CONVENTIONS\nMINE = CONVENTIONS['exact']"
    (home / "energy.py").write_text(energy)
    assert Pricing.of("~/energy.py:MINE", "45nm-fp32").convention.name == "exact"


def test_the_home_of_nobody_is_an_error_of_one_line(home: Path) -> None:
    assert user_path("~nobody-of-that-name/r") == Path.cwd() / "~nobody-of-that-name" / "r"
    with pytest.raises(DatasetError, match="there is no folder ~nobody-of-that-name"):
        photo_root("folder:~nobody-of-that-name/pets", None)


def test_a_store_without_a_finished_cell_is_no_success(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["verify", "--results", str(tmp_path / "gone")])
    assert missing.exit_code != 0 and "there is no results folder" in str(missing.exception)
    for table in TABLES:
        (tmp_path / table).mkdir()
    empty = CliRunner().invoke(app, ["verify", "--results", str(tmp_path)])
    assert empty.exit_code == 1
    assert f"'{tmp_path}' holds no finished cell, so nothing was verified" in empty.output


def test_merging_from_a_folder_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    words = ["merge", str(tmp_path / "gone"), "--into", str(tmp_path / "b")]
    assert CliRunner().invoke(app, words).exit_code != 0


# --- TOML files of Windows ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["configuration", "recipe"])
def test_a_byte_order_mark_is_accepted(what: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SHIPPED.read_bytes())
    text, values = read_toml(path, what)
    assert text == SHIPPED.read_text() and values["epochs"] == 4
    assert load_recipe(str(path)).hash == load_recipe("quick").hash


def test_a_byte_order_mark_elsewhere_is_still_refused(tmp_path: Path) -> None:
    (path := tmp_path / "mine.toml").write_bytes(b"a = 1\n\xef\xbb\xbfb = 2")
    with pytest.raises(SpecError, match="is not valid TOML"):
        read_toml(path, "recipe")
