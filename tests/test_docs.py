"""The documentation is true: examples run, command lines parse, links exist, outputs are real."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import readme_picture
import torch
import typer
from refresh_docs import blocks, documents, numbers, refreshed, shown

import codingbench as cb
from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.cells.settings import make_grid, read_config
from codingbench.cli.main import app
from codingbench.datasets import get_info
from codingbench.energy import COMPARED
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.training.budget import _MARGIN

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "CHANGELOG.md"
"""The one document that names commands and files as they once were."""

MOST_WORDS = 900

current = pytest.mark.parametrize(
    "path",
    [path for path in documents() if path != HISTORY],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)


def modules() -> list[str]:
    """Return the import names of every module, including those of the top-level folders."""
    names = ("codingbench", "codingbench.encoders", "codingbench.backbones")
    inside = [
        module.name
        for name in names
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
    ]
    # a set, because a wheel has the plug-ins below codingbench and lists them twice
    return sorted({*names, *inside})


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command below ``group`` with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", modules())
def test_every_example_in_a_docstring_runs_and_gives_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    ran = doctest.testmod(module)
    # a docstring that a decorator hides would not be found
    assert ran.attempted == inspect.getsource(module).count(">>> ")
    assert ran.failed == 0


# --- commands -------------------------------------------------------------------------------------


def parse(words: list[str]) -> None:
    """Convert every option and argument of a command line; raise for those that do not exist."""
    path = max((p for p in COMMANDS if tuple(words[: len(p)]) == p), key=len)
    COMMANDS[path].make_context(" ".join(path), words[len(path) :]).close()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_one_example_that_parses(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    first, *_ = command.help.splitlines()
    examples = re.findall(r"^Example: codingbench (.+)$", command.help, re.MULTILINE)
    assert len(first) > 20 and len(examples) == 1
    words = shlex.split(examples[0])
    assert tuple(words[: len(path)]) == path
    parse(words)


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of every ``codingbench`` command with arguments, in blocks and in prose."""
    fenced = "\n".join(block.body for block in blocks(text))
    for line in re.findall(r"^(?:\$ )?codingbench (.+)$", fenced, re.MULTILINE):
        yield shlex.split(line, comments=True)
    for code in re.findall(r"`codingbench ([^`]+)`", text):
        words = shlex.split(code.replace("\\|", "|"))
        if len(words) > 1 and "..." not in words:
            yield words


@current
def test_every_command_line_of_a_document_parses(path: Path) -> None:
    for words in command_lines(path.read_text()):
        parse(words)


def test_command_lines_are_found() -> None:
    assert len(list(command_lines((ROOT / "README.md").read_text()))) >= 8
    found = command_lines("`codingbench run\n--T 2\\|4`\n```console\n$ codingbench data # all\n```")
    assert list(found) == [["data"], ["run", "--T", "2|4"]]


# --- documents ------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def without_blocks(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@current
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(path)):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@current
def test_every_file_named_exists(path: Path) -> None:
    """Names are relative to the repository, the package, the document or the folder of tests."""
    named = re.findall(r"`([\w./-]+/[\w./-]+\.(?:py|md|toml|svg|png|js))`", without_blocks(path))
    bases = (ROOT, ROOT / "codingbench", path.parent, ROOT / "tests")
    outside = [name for name in named if name.startswith("./")]
    missing = [name for name in named if not any((base / name).exists() for base in bases)]
    assert missing == outside


@current
def test_every_output_shown_is_what_the_command_prints(path: Path) -> None:
    """If this fails after a change of output: python tests/benchmarks/refresh_docs.py."""
    text = path.read_text()
    assert refreshed(text).splitlines() == text.splitlines()


RATIO = re.compile(
    r"(?:[\d.]+|\b(?:two|three|four|five|six|seven|eight|nine|ten)) times (?:as|its|the)\b"
    r"|\bfactors? of\s+(?:[\d.]+|two|three|four|five|six|seven|eight|nine|ten)\b"
    r"|\b(?:twice|half) (?:as|its|of the|the(?! height))\b|[\d.]+ of its [\d.]+",
    re.IGNORECASE,
)
"""Phrases with which a text compares two numbers."""

BENCHMARK = re.compile(r"`python tests/benchmarks/bench_\w+\.py`")
"""The benchmark that a paragraph names if its ratios are of times, which no test can repeat."""


def without_breaks(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def paragraphs(path: Path) -> list[str]:
    """Return the paragraphs and list items of a document, each on one line."""
    parts = re.split(r"\n\s*\n|\n(?=\s*- )", without_blocks(path))
    return [without_breaks(part).strip() for part in parts if not part.strip().startswith("|")]


def over_direct(store: str, coding: str = "gac") -> dict[str, float]:
    """Return the energy of a coding divided by that of direct coding, by convention."""
    cells = cb.load(ROOT / "results" / "reference" / store)
    energies = {
        name: cells.energy(name).groupby("encoder")["energy_uj"].mean() for name in COMPARED
    }
    return {name: float(mean[coding] / mean["direct"]) for name, mean in energies.items()}


def energy_ratios() -> list[str]:
    ratios = over_direct("fashion_mini")
    assert ratios.pop("paper") < 1
    low, high = min(ratios, key=lambda name: ratios[name]), max(ratios, key=lambda n: ratios[n])
    return [
        "GAC is the most expensive of the four, by factors of "
        f"{ratios[low]:.1f} (`{low}`) to {ratios[high]:.1f} (`{high}`) over direct coding"
    ]


def result_ratios() -> list[str]:
    bill = cb.load(ROOT / "results/reference/fashion_mini").leaderboard(bill=True)
    gac = bill.set_index("encoder").loc["gac"]
    return [
        f"at {over_direct('field')['exact']:.1f} times its energy under `exact`",
        f"at {over_direct('field', 'dta')['exact']:.1f} times the energy of `direct`",
        f"at {over_direct('gac-claim')['exact']:.1f} times the energy (`exact`)",
        f"at {over_direct('narrow')['exact']:.1f} times the energy",
        f"costs {gac['coding_uj']:.0f} of its {gac['energy_uj']:.0f} µJ per image",
        *bill_of_codings(),
        *findings(),
        *fashion_ratios(),
    ]


def findings() -> list[str]:
    """Return what the summary says of several stores."""
    longer = [
        over_direct(store)["exact"] for store in ("fashion", "gac-claim", "narrow", "codings")
    ]
    first, last = (losses(store, "direct[spiking=false]", "rate") for store in ("field", "fashion"))
    return [
        f"GAC computes at {min(longer):.1f} to {max(longer):.1f} times the energy of direct coding",
        f"by {-first[0]:.1f} points and `rate` loses {first[1]:.1f}",
        f"the lead is gone ({-last[0]:+.1f} on Fashion-MNIST",
        f"`rate` {last[1]:.1f}, both significantly",
    ]


def losses(store: str, *codings: str) -> list[float]:
    """Return by how many points codings are below direct coding, in the mean over seeds."""
    cells = cb.load(ROOT / "results" / "reference" / store).cells
    accuracy = 100 * cells.groupby("encoder")["accuracy"].mean()
    return [float(accuracy["direct"] - accuracy[coding]) for coding in codings]


def bill_of_codings() -> list[str]:
    bill = cb.load(ROOT / "results/reference/codings").leaderboard(bill=True).set_index("encoder")
    gac, direct = bill.loc["gac"], bill.loc["direct"]
    return [
        f"GAC costs {gac['energy_uj']:.0f} µJ per image under `exact` and `direct` "
        f"{direct['energy_uj']:.0f}: GAC's gate takes {gac['coding_uj']:.0f} µJ, and its backbone, "
        f"which has fewer spikes, {gac['backbone_uj']:.0f} instead of {direct['backbone_uj']:.0f}"
    ]


def fashion_ratios() -> list[str]:
    constant = "direct[spiking=false]"
    steps = {code: f"published_step[code={code}]" for code in ("ttfs", "phase")}
    steps["rate"] = "published_step"
    names = ("gac", constant, "phase", "latency", "rate", *steps.values())
    loss = dict(zip(names, losses("fashion", *names), strict=True))
    return [
        f"`gac` is {-loss['gac']:.2f} points higher (95 % confidence interval",
        f"at {over_direct('fashion')['exact']:.1f} times the energy (`exact`)",
        f"`{constant}` is {-loss[constant]:.2f} points above `direct`, at "
        f"{over_direct('fashion', constant)['exact']:.1f} times the energy",
        f"`phase` {loss['phase']:.1f} points, `latency` {loss['latency']:.1f} and `rate` "
        f"{loss['rate']:.1f} against `direct`",
        *(
            f"{words} | {loss[name]:.1f} | {loss[steps[code]]:.1f} | "
            f"{loss[steps[code]] - loss[name]:.1f} (p"
            for words, name, code in (
                ("rate", "rate", "rate"),
                ("time to first spike", "latency", "ttfs"),
                ("phase", "phase", "phase"),
            )
        ),
        f"{loss[steps['ttfs']] - loss['latency']:.1f} and "
        f"{loss[steps['phase']] - loss['phase']:.1f} points below the codes as they are defined",
    ]


def tuning_ratios() -> list[str]:
    rounds = json.loads((ROOT / "results/reference/tuning/sprint.json").read_text())
    speeds = {row["name"]: row["images_per_s"] for row in rounds[0]["rows"]}
    sgd = speeds["as the first version: SGD, rate 0.2"]
    muon = speeds["Muon, rate 0.05, rest SGD 0.2"]
    return [
        f"a step takes about {sgd / muon:.1f} times as long ({round(muon, -2):,.0f} against "
        f"{round(sgd, -2):,.0f} images/s in the first round)"
    ]


def gpu_ratios() -> list[str]:
    (encoder,) = json.loads((ROOT / "results/reference/gpu/h200.json").read_text())["parts"][
        "encoder"
    ]
    fused, eager = (encoder[f"forward + backward, {name}"]["ratio"] for name in ("fused", "eager"))
    return [
        f"trains {fused:.2f} times as fast as in the form that repeats everything at every step, "
        f"{eager:.2f} times with eager neurons",
        *peer_ratios(),
    ]


def peer_ratios() -> list[str]:
    script = json.loads((ROOT / "results/reference/gpu/h200-peers.json").read_text())
    relu, ours, jelly, loop = (row["train_ms"] for row in script["parts"]["steps"])
    return [
        f"takes {ours:.2f} ms here, {relu:.2f} with ReLU, {jelly:.1f} with SpikingJelly 2.0.0 and "
        f"{loop:.1f} with snntorch's outer loop ({jelly / ours:.1f} and {loop / ours:.1f} times "
        "as long)"
    ]


def coding_ratios() -> list[str]:
    """Return the ratios of the codes that are inspected, from the output shown in the document."""
    shown = (ROOT / "encoders" / "README.md").read_text()
    rows: dict[str, str] = dict(
        re.findall(r"^(retina|latency) +([\d,]+ +[▁▂▃▄▅▆▇█]+ .+)$", shown, re.MULTILINE)
    )
    retina, latency = (rows[name].split() for name in ("retina", "latency"))
    spikes = cb.inspect("latency[scale=log]")["activity.nonzero_by_step"][0]
    two_of_four = sum(sorted(spikes)[-2:]) / sum(spikes)
    return [
        f"recovers {100 * float(retina[-2]):.0f} % of the variance of the image; logarithmic "
        f"latency recovers {100 * float(latency[-2]):.0f} % with "
        f"{float(latency[0]) / float(retina[0]):.2f} times as many spikes",
        f"has {100 * two_of_four:.0f} % of its spikes in two of four steps",
    ]


RATIOS: dict[str, Callable[[], list[str]]] = {
    "codingbench/counting/README.md": energy_ratios,
    "encoders/README.md": coding_ratios,
    "results/README.md": result_ratios,
    "results/reference/gpu/README.md": gpu_ratios,
    "results/reference/tuning/README.md": tuning_ratios,
    "codingbench/executors/README.md": lambda: [f"take {_MARGIN} times as long as the longest"],
}


@current
def test_every_ratio_in_a_text_is_computed_here_or_names_its_benchmark(path: Path) -> None:
    ratios = RATIOS.get(path.relative_to(ROOT).as_posix())
    computed = ratios() if ratios else []
    text = without_breaks(without_blocks(path))
    assert [ratio for ratio in computed if ratio not in text] == []
    rest = [part for part in paragraphs(path) if not BENCHMARK.search(part)]
    for ratio in computed:
        rest = [part.replace(ratio, "") for part in rest]
    assert [part for part in rest if RATIO.search(part)] == []


def test_every_row_of_the_table_of_gpus_is_in_the_file_of_its_script() -> None:
    columns = {
        "train_ms": ".2f",
        "train_over_relu": ".2f",
        "train_over_convolutions": ".2f",
        "images_per_s": ",.0f",
        "peak_mb": ",.0f",
        "memory_over_relu": ".2f",
        "evaluate_ms": ".2f",
        "evaluate_over_relu": ".2f",
    }
    script = json.loads((ROOT / "results/reference/gpu/h200.json").read_text())
    measured = [
        [format(step[name], form) for name, form in columns.items()]
        for step in script["parts"]["steps"]
    ]
    text = (ROOT / "results/reference/gpu/README.md").read_text()
    (table,) = re.findall(r"^\| network \| neurons \| train ms .*?\n\n", text, re.M | re.S)
    shown = [re.split(r" *\| *", line)[3:-1] for line in table.split("\n")[2:] if line]
    assert len(shown) == 13 and [row for row in shown if row not in measured] == []


def test_of_an_output_the_chosen_parts_are_shown() -> None:
    printed = "\na1\na2\n\nb1\nb2\n \nc1\n\n"

    def chosen(**options: str) -> list[str]:
        return shown(printed, options)

    assert chosen() == ["a1", "a2", "", "b1", "b2", "", "c1"]
    assert chosen(paragraphs="2") == ["b1", "b2", "…"]
    assert chosen(paragraphs="1,3") == ["a1", "a2", "…", "c1"]
    assert chosen(paragraphs="2-3", lines="2-9") == ["b2", "", "c1"]
    assert chosen(only="2$") == ["a2", "…", "b2", "…"]
    assert chosen(paragraphs="4") == []
    assert numbers("1,3-5") == {1, 3, 4, 5}


def test_other_blocks_are_left_as_they_are() -> None:
    text = "```\nold\n```\n```python\nx = 1\n```\n"
    assert refreshed(text) == text
    fresh = refreshed("```text file=a.txt\nhello\n```\n```console\n$ cat a.txt\nold\n```\n")
    assert fresh == "```text file=a.txt\nhello\n```\n```console\n$ cat a.txt\nhello\n```\n"


@pytest.mark.parametrize("document", ["README.md", "encoders/README.md"])
def test_the_example_coding_codes_contrast(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))  # its name ends with it
    found = blocks((ROOT / document).read_text())
    (example,) = (block.body for block in found if block.options.get("file") == "retina.py")
    (tmp_path / "retina.py").write_text(example)
    plugin = ENCODERS.resolve(f"{tmp_path / 'retina.py'}:Retina")
    network: Any = build_network(
        plugin, BACKBONES.resolve("csnn"), task_of(get_info("fashion_mini"), 3), seed=0
    )
    images = torch.full((1, 1, 28, 28), 0.5)
    images[0, 0, 14, 14] = 0.9
    spk = network.encoder.spikes(images, torch.Generator())[:, 0, 0]
    # contrast is 0.4 x 24 / 25 at the bright pixel and -0.4 / 25 around it; levels .4, .2, .1
    assert spk[:, 14, 14].tolist() == [0, 1, 1] and spk[:, 14, 13].tolist() == [0, 0, 0]
    assert spk.abs().sum() == 2
    assert network(images, torch.Generator()).shape == (3, 1, 10)


def example(file: str, folder: Path) -> Path:
    """Write the block of the README of recipes that holds this file."""
    found = blocks((ROOT / "codingbench" / "recipes" / "README.md").read_text())
    (body,) = (block.body for block in found if block.options.get("file") == file)
    (folder / file).write_text(body)
    return folder / file


def test_the_example_of_a_settings_file_is_one(tmp_path: Path) -> None:
    grid = make_grid(read_config(example("grid.toml", tmp_path)))
    assert (grid.num_steps, grid.seeds, grid.train_samples) == ((2, 4, 6), (0, 1, 2), 10_000)


def test_the_example_of_a_recipe_by_difference_is_one(tmp_path: Path) -> None:
    recipe = load_recipe(str(example("mine.toml", tmp_path)))
    assert (recipe.epochs, recipe.batch_size) == (30, load_recipe("gac").batch_size)
    assert (recipe.optimizer.lr, recipe.optimizer.nesterov) == (0.2, True)


def test_the_picture_of_the_readme_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))
    readme_picture.main(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_no_file_names_a_folder_of_a_developers_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and its folder")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    machine_path = re.compile(rb"(?<![\w.-])/(root|work|home)/")
    paths = [ROOT / name for name in names.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    assert [p for p in paths if p.is_file() and machine_path.search(p.read_bytes())] == []
