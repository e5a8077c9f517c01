"""The Python API: what it returns is what the commands print, and importing it costs nothing."""

import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import codingbench as cb
from codingbench.cli.main import app
from codingbench.errors import SpecError, StoreError
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.formatting import records
from codingbench.training.loop import Interrupted

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "backbones": "csnn[width=4]",
    "epochs": 1,
    "train_samples": 200,
    "test_samples": 100,
    "workers": 1,
    "threads": 1,
    "quiet": True,
}


class Plain(cb.FeatureEncoder):
    """The features as currents, the same at every step."""

    emits = "real"

    def encode(self, features: Tensor) -> Tensor:
        return features.expand(self.num_steps, *features.shape)


class Raises(Plain):
    """A coding whose first batch fails."""

    def encode(self, features: Tensor) -> Tensor:
        if len(features) > 1:
            raise RuntimeError("no spike today")
        return super().encode(features)


class Named(Plain):
    """A coding whose parameter may hold any text."""

    def __init__(self, setting: cb.Setting, *, name: str = "a") -> None:
        super().__init__(setting)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api") / "results"


@pytest.fixture(scope="module")
def runs(folder: Path) -> cb.Results:
    """The example of the documentation, with few images."""
    return cb.run(encoders=["direct", "rate"], T=[1, 2], seeds=2, results=folder, **SMALL)


def printed(*arguments: object) -> Any:
    """Return the JSON that a command prints."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def python(*lines: str) -> str:
    """Run a program in a separate process and return its output."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- importing ------------------------------------------------------------------------------------


def test_importing_takes_less_than_50_ms_and_loads_no_large_package() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); import codingbench",
        "print(time.perf_counter() - start)",
        "print({'torch', 'pandas', 'pyarrow', 'rich', 'numpy', 'typer'} & {*sys.modules})",
    )
    lines = [python(*program).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in lines) < 0.05
    assert {loaded for _, loaded in lines} == {"set()"}


def test_reading_results_imports_no_torch(results: Path) -> None:
    program = (
        "import sys, codingbench as cb",
        f"runs = cb.load({str(results)!r})",
        "print(len(runs.leaderboard()), len(runs.cells), 'torch' in sys.modules)",
    )
    assert python(*program) == "1 2 False"


def test_public_names_are_found_and_hide_no_submodule() -> None:
    assert {*cb._HOMES} <= {*dir(cb)}
    assert all(getattr(cb, name).__name__ == name for name in cb._HOMES if "register" not in name)
    submodules = {module.name for module in pkgutil.iter_modules(cb.__path__)}
    assert not submodules & {*cb._HOMES}
    with pytest.raises(AttributeError, match="'codingbench' has no attribute 'runn'"):
        cb.runn  # noqa: B018


def test_names_are_imported_in_any_form() -> None:
    program = (
        "from codingbench import Encoder, register_encoder, energy",
        "import codingbench.energy, codingbench as cb",
        "print(energy is codingbench.energy is cb.energy, sorted(cb.energy.CONVENTIONS)[0])",
        "print(cb.PixelEncoder.__mro__[1] is Encoder)",
    )
    assert python(*program).splitlines() == ["True dense-mac", "True"]


# --- running --------------------------------------------------------------------------------------


def test_a_run_returns_the_cells_of_its_grid(runs: cb.Results, folder: Path) -> None:
    assert len(runs) == 8 and runs.failed == 0
    assert repr(runs) == f"Results({str(folder)!r}: 8 finished cells)"
    assert sorted(runs.cells["num_steps"].unique()) == [1, 2]
    assert len(runs.steps) == 2 * (2 * 1 + 2 * 2)  # codings x seeds x T
    assert set(runs.layers["key"]) == set(runs.epochs["key"]) == set(runs.cells["key"])
    assert len(runs.predictions) == 8 * 100
    assert runs.failures.empty and runs.robustness.empty


def test_a_further_run_returns_its_own_cells_and_load_returns_all(
    runs: cb.Results, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = cb.run(encoders=("rate",), T=2, seeds=[0, 1], results=str(folder), **SMALL)
    assert again.keys < runs.keys and len(again) == 2
    assert len(cb.load(folder)) == 8
    assert capsys.readouterr() == ("", "")  # quiet


def test_a_grid_may_be_given_as_a_whole(runs: cb.Results, folder: Path) -> None:
    grid = cb.Grid(
        encoders=("direct",),
        backbones=("csnn[width=4]",),
        num_steps=(1,),
        epochs=1,
        train_samples=200,
        test_samples=100,
    )
    assert cb.run(grid, results=folder, workers=1, quiet=True).keys < runs.keys
    with pytest.raises(SpecError, match="expected a grid or T, got both"):
        cb.run(grid, T=2, results=folder)


def test_progress_is_shown_on_stderr(
    runs: cb.Results, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {**SMALL, "quiet": False}
    cb.run(encoders="direct", T=1, seeds=3, results=folder, **shown)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[3/3] done   direct · csnn[width=4] · T=1 · seed 2" in err
    assert err.endswith("2 cells finished before; force=True runs such cells again\n")


def test_a_failed_cell_stops_nothing_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {**SMALL, "quiet": False}
    mixed = cb.run(encoders=[Raises, "direct"], T=1, results=tmp_path / "mixed", **shown)
    assert (len(mixed), mixed.failed) == (1, 1)
    assert mixed.failures["reason"].tolist() == ["RuntimeError: no spike today"]
    assert mixed.failures["encoder"].tolist() == ["Raises"]
    assert capsys.readouterr().err.endswith("1 cell failed: see .failures\n")
    assert repr(mixed).endswith("1 finished cell, 1 failed)")
    none = cb.run(encoders=Raises, T=1, results=tmp_path / "none", **SMALL)
    with pytest.raises(StoreError, match=r"no finished cell in .*none'; 1 failed"):
        none.leaderboard()
    assert "0 finished cells, 1 failed" in none._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoders": "direkt"}, "unknown encoder 'direkt'; did you mean 'direct'"),
        ({"encoders": []}, "encoders is an empty list: expected at least one entry"),
        ({"encoders": 3}, "encoders expects names or classes, got 3"),
        ({"encoders": ["direct", None]}, "encoders expects names or classes, got None"),
        ({"encoders": [int]}, "int is not a subclass of codingbench.encoder.Encoder"),
        ({"backbones": [Plain]}, "Plain is not a subclass of codingbench.backbone.Backbone"),
        ({"T": 0}, "T must be a whole number of at least 1, got 0"),
        ({"T": 1.5}, "T expects whole numbers, got 1.5"),
        ({"compile": "yes"}, "compile expects True or False, got 'yes'"),
        ({"timeout": "1h"}, "timeout expects a number, got '1h'"),
        ({"timeout": 0}, "timeout must be a number of at least 1, got 0"),
        ({"dataset": torch.zeros(3)}, "dataset expects text or a list of texts, got a Tensor"),
        ({"grid": ["direct"]}, "grid expects a Grid, got a list; name codings with encoders="),
        ({"grid": "direct"}, "grid expects a Grid, got 'direct'; name codings with encoders="),
        ({"seeds": [-1]}, "seeds must be from 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"device": "gpu"}, "gpu"),
        ({"executor": "slurmm"}, "unknown executor 'slurmm'; did you mean 'slurm'"),
    ],
)
def test_a_wrong_request_is_one_line(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        cb.run(results=tmp_path, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)


def test_an_interrupted_run_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise Interrupted

    monkeypatch.setattr("codingbench.executors.session.PreparedRun.carry_out", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"0 of 1 cells are kept in .*the same call"):
        cb.run(encoders="direct", T=1, results=tmp_path, **SMALL)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, []),
        ({"energy": "paper", "sort": "energy"}, ["--energy", "paper", "--sort", "energy"]),
        ({"technology": "int8", "sort": "T"}, ["--technology", "int8", "--sort", "T"]),
        ({"energy": "all"}, ["--energy", "all"]),
        ({"bill": True}, ["--bill"]),
        ({"vs_ann": True}, ["--vs-ann"]),
        ({"published": True}, ["--published"]),
    ],
)
def test_the_leaderboard_is_that_of_the_command(
    runs: cb.Results, folder: Path, options: dict[str, Any], flags: list[str]
) -> None:
    expected = printed("leaderboard", "--results", folder, *flags)
    assert records(cb.load(folder).leaderboard(**options)) == expected
    assert records(cb.leaderboard(folder, **options)) == expected


def test_the_leaderboard_of_a_run_ranks_its_cells_alone(runs: cb.Results, folder: Path) -> None:
    table = runs.leaderboard()
    assert {key for keys in table["keys"] for key in keys} == runs.keys
    assert table["seeds"].tolist() == [2, 2, 2, 2]
    with pytest.raises(SpecError, match="bill and energy='all' give different tables"):
        runs.leaderboard(bill=True, energy="all")
    with pytest.raises(SpecError, match="unknown sort 'acuracy'; did you mean 'accuracy'"):
        runs.leaderboard(sort="acuracy")


def test_a_comparison_is_that_of_the_command(runs: cb.Results, folder: Path) -> None:
    expected = printed("compare", "direct", "rate", "--T", 2, "--results", folder)
    assert records(cb.compare("direct", "rate", T=2, results=folder)) == expected
    by_class = runs.compare(ENCODERS.get("direct"), "rate[gain=1]", T=[2], dataset="fashion_mini")
    assert by_class[["encoder_a", "encoder_b"]].values.tolist() == [["direct", "rate"]]
    with pytest.raises(SpecError, match=r"no cell of T=3 \(there are T=1, 2\)"):
        runs.compare("direct", "rate", T=3)
    with pytest.raises(SpecError, match="unknown data set in these results 'cifar10'"):
        runs.compare("direct", "rate", dataset="cifar10")


def test_energy_prices_every_cell(runs: cb.Results) -> None:
    energies = runs.energy("memory", "int8")
    assert energies["key"].tolist() == runs.cells["key"].tolist()
    assert set(energies["energy_convention"]) == {"memory"}
    assert set(energies["technology"]) == {"45nm-int8"}
    rows = runs.leaderboard(energy="memory", technology="int8").set_index(["encoder", "num_steps"])
    means = energies.groupby(["encoder", "num_steps"])["energy_uj"].mean()
    pd.testing.assert_series_equal(rows["energy_uj"].sort_index(), means)


def test_the_energy_of_one_cell_is_one_call(results: Path) -> None:
    stored = cb.load(Path(__file__).parents[1] / "results" / "reference" / "fashion_mini")
    shown = printed("show", "50ef409e", "--results", stored.store.folder, "--energy", "all")
    last = shown["steps"][-1]
    assert stored.energy_uj("50ef409e") == pytest.approx(last["energy_exact_uj"])
    assert stored.energy_uj("50ef409e", "memory") == pytest.approx(last["energy_memory_uj"])
    table = stored.energy("memory", "int8").set_index("key")["energy_uj"]
    assert {key: stored.energy_uj(key, "memory", "int8") for key in table.index} == table.to_dict()
    with pytest.raises(SpecError, match="no cell 'ffffffff' in"):
        stored.energy_uj("ffffffff")
    with pytest.raises(SpecError, match="unknown energy convention 'memori'"):
        stored.energy_uj("50ef409e", "memori")
    (failed,) = cb.load(results).failures["key"]
    with pytest.raises(SpecError, match=f"^cell {failed} failed: it has no energy$"):
        cb.load(results).energy_uj(failed)


def test_made_up_results_read_the_same(results: Path) -> None:
    loaded = cb.load(results)
    assert records(loaded.leaderboard()) == printed("leaderboard", "--results", results)
    assert loaded.failed == len(loaded.failures) == 1


def test_a_frame_begins_with_what_a_reader_wants(runs: cb.Results) -> None:
    table, pairs = runs.leaderboard(), runs.compare("direct", "rate", T=2)
    assert [*table][:5] == ["rank", "encoder", "num_steps", "seeds", "accuracy"]
    assert [*table][8:10] == ["firing_rate", "energy_uj"]
    assert [*pairs][:4] == ["encoder_a", "encoder_b", "num_steps", "accuracy_delta"]
    assert [*pairs][7] == "verdict"


def test_an_argument_of_the_wrong_type_is_named(results: Path) -> None:
    with pytest.raises(SpecError, match=r"^energy expects text, got 5$"):
        cb.load(results).leaderboard(energy=5)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^T expects whole numbers, got 2\.5$"):
        cb.compare("direct", "rate", results=results, T=2.5)
    with pytest.raises(SpecError, match=r"^results expects a path, got 5$"):
        cb.load(5)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^plugin expects a name or a class, got 3$"):
        cb.check(3)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"^plugin expects a name or a class, got a list$"):
        cb.check([Plain])  # type: ignore[arg-type]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no results folder '.*nowhere'"):
        cb.load(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="no finished cell in"):
        cb.load(tmp_path)


def test_a_notebook_shows_the_leaderboard_with_all_names_escaped(tmp_path: Path) -> None:
    label = "<b>&"
    ours = f"{__file__}:Named"
    shown = cb.run(encoders=f"{ours}[name={label}]", T=1, results=tmp_path, **SMALL)
    html = shown._repr_html_()
    assert "<td" in html and "Named[name=&lt;b&gt;&amp;]" in html and "<b>" not in html
    (tmp_path / "cells" / f"{'0' * 16}.parquet").write_bytes(b"damaged")
    assert "0000.parquet" in cb.load(tmp_path)._repr_html_()  # says so, and raises nothing


# --- examining ------------------------------------------------------------------------------------


def test_inspect_has_the_values_of_the_command() -> None:
    expected = printed("inspect", "direct,rate", "--samples", 20, "--T", 2)
    frame = cb.inspect("direct", "rate", samples=20, T=2)
    assert frame.attrs["conditions"] == expected["conditions"]
    assert frame["encoder"].tolist() == ["direct", "rate"]
    for row, coding in zip(frame.to_dict(orient="records"), expected["codings"], strict=True):
        for name, value in coding.items():
            inside = value if isinstance(value, dict) and value else {}
            for key, entry in inside.items() or [("", value)]:
                found = row[f"{name}.{key}" if key else name]
                assert found == entry or (entry is None and pd.isna(found)) or (
                    list(found) == entry
                ), (name, key)  # fmt: skip


def test_inspect_takes_lists_and_refuses_nothing_at_all() -> None:
    assert cb.inspect("direct,rate", samples=8, T=1)["encoder"].tolist() == ["direct", "rate"]
    with pytest.raises(SpecError, match="expected at least one coding"):
        cb.inspect()


def test_a_check_is_true_if_no_check_failed() -> None:
    done = cb.check("rate")
    assert done and "encoder rate: " in repr(done) and "0 failed" in repr(done)
    assert set(done.frame["outcome"]) <= {"passed", "skipped"}


@pytest.mark.thorough
def test_a_backbone_is_checked_like_a_coding() -> None:
    done = cb.check(BACKBONES.get("csnn"))
    assert done and repr(done).startswith("backbone csnn: ")


def test_a_failed_check_raises_nothing() -> None:
    done = cb.check(Raises)
    assert not done
    assert "failed  runs: raises RuntimeError: no spike today" in repr(done)
    assert "matters:" in repr(done) and "<pre>" in done._repr_html_()
    with pytest.raises(SpecError, match="expected a coding or a backbone, got the class int"):
        cb.check(int)
    with pytest.raises(SpecError, match="unknown plug-in 'direkt'"):
        cb.check("direkt")


# --- stores with kept plug-ins --------------------------------------------------------------------


def test_a_store_with_kept_classes_is_sound(runs: cb.Results, folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "results"
    shutil.copytree(folder, store)
    (store / "plugins").mkdir()
    (store / "plugins" / "MyCoding-0123456789ab.py").write_text("raise SystemExit\n")
    for command in (
        ["verify", "--clean", "--results", store],
        ["compact", "--results", store],
        ["merge", store, "--into", tmp_path / "merged"],
        ["verify", "--results", tmp_path / "merged"],
    ):
        done = CliRunner().invoke(app, [*map(str, command)])
        assert done.exit_code == 0, done.output
    assert len(cb.load(store)) == len(cb.load(tmp_path / "merged")) == len(cb.load(folder))
