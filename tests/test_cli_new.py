"""``codingbench new``: the written plug-ins work as they are, and nothing is overwritten."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from typer.testing import CliRunner

from codingbench.backbone import Network, build_network
from codingbench.cells.network import task_of
from codingbench.cli.main import app
from codingbench.counting.counter import OperationCounter
from codingbench.datasets import get_info
from codingbench.encoder import Setting
from codingbench.errors import SpecError
from codingbench.neurons import MultiStepLeaky
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.store.folder import Store

ROOT = Path(__file__).parents[1]
KINDS = ("encoder bright", "encoder bright --kind feature", "backbone bright")
every_kind = pytest.mark.parametrize("words", KINDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget the plug-ins registered there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for registry in (ENCODERS, BACKBONES):
        for name in ("bright", "other"):
            registry._classes.pop(name, None)


def new(words: str) -> str:
    result = CliRunner().invoke(app, ["new", *words.split()])
    if isinstance(result.exception, SpecError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(words: str) -> str:
    with pytest.raises(SpecError) as raised:
        new(words)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def network(words: str, num_steps: int = 4) -> Network:
    """Build a network of the new plug-in and a shipped one."""
    new(words)
    is_encoder = words.startswith("encoder")
    encoder = ENCODERS.resolve("./bright.py:Bright" if is_encoder else "direct")
    backbone = BACKBONES.resolve("csnn[width=4]" if is_encoder else "./bright.py:Bright[width=4]")
    assert (encoder if is_encoder else backbone).label.partition("[")[0] == "bright"
    return build_network(encoder, backbone, task_of(get_info("cifar10"), num_steps), seed=0)


def images(seed: int = 0) -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=Generator().manual_seed(seed))


@every_kind
def test_it_writes_one_file_and_says_what_to_do_next(words: str, folder: Path) -> None:
    printed = new(words)
    assert [path.name for path in folder.iterdir()] == ["bright.py"]
    kind = words.split()[0]
    first, *steps = printed.splitlines()
    assert first == f"./bright.py holds the {kind} Bright. It works as it is; next:"
    runs = {"encoder": "--encoders ./bright.py:Bright,direct", "backbone": "--backbones ./bright"}
    assert "  codingbench check ./bright.py:Bright" in steps
    assert f"  codingbench run {runs[kind]}" in printed
    assert ("  codingbench inspect ./bright.py:Bright" in steps) == (kind == "encoder")


@every_kind
@pytest.mark.parametrize("num_steps", [1, 4])
def test_it_gives_logits_and_every_operation_is_counted(words: str, num_steps: int) -> None:
    made = network(words, num_steps).eval()
    with torch.no_grad(), OperationCounter(made, num_steps) as counter:
        logits = made(images(), Generator())
    assert logits.shape == (num_steps, 3, 10) and logits.isfinite().all()
    assert not counter.uncounted()


@every_kind
def test_every_parameter_gets_a_gradient(words: str) -> None:
    made = network(words)
    made(images(), Generator()).square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_pixel_coding_spreads_its_rounded_count_of_spikes_evenly() -> None:
    made: Any = network("encoder bright").encoder
    greys = torch.tensor([0.0, 0.1, 0.2, 0.25, 0.5, 0.8, 1.0]).reshape(7, 1, 1, 1)
    spk = made.spikes(greys, Generator())[:, :, 0, 0, 0].T
    assert spk.tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],  # 4 x 0.1 is below 0.5
        [0, 0, 1, 0],
        [0, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 1, 0, 1],
        [1, 1, 1, 1],
    ]


def test_the_feature_coding_without_spread_is_direct_coding() -> None:
    new("encoder bright --kind feature")
    task = task_of(get_info("fashion_mini"), 5)
    setting = Setting(task, torch.nn.Identity(), 2, lambda: MultiStepLeaky(0.5, threshold=1.0))
    features = 3 * torch.randn(7, 2, 4, 4, generator=Generator().manual_seed(1))
    codes = {
        text: ENCODERS.resolve(text).build(setting).encode(features)
        for text in ("./bright.py:Bright[spread=0]", "./bright.py:Bright", "direct")
    }
    plain, spread, direct = codes.values()
    assert torch.equal(plain, direct) and not torch.equal(spread, direct)


def test_its_gains_start_evenly_spaced_around_1() -> None:
    gain = network("encoder bright --kind feature").encoder.gain
    assert isinstance(gain, torch.nn.Parameter) and gain.shape == (4, 1, 4, 1, 1)
    assert gain[:, 0, 3, 0, 0].tolist() == [0.625, 0.875, 1.125, 1.375]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("encoder bright", "./bright.py:Bright[gain=1.5]"),
        ("encoder bright --kind feature", "./bright.py:Bright[spread=-0.5]"),
    ],
)
def test_its_parameter_is_held_to_its_range(words: str, text: str) -> None:
    new(words)
    task = task_of(get_info("fashion_mini"), 2)
    with pytest.raises(ValueError, match=r"must be in [(\[]0, 1\], got -?[01]\.5"):
        build_network(ENCODERS.resolve(text), BACKBONES.resolve("csnn"), task, 0)


@every_kind
def test_the_file_is_clean_by_the_rules_of_this_repository(words: str) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("needs ruff")
    new(words)
    rules = ["--config", str(ROOT / "pyproject.toml")]
    for check in (["check", *rules], ["format", "--check", *rules]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, "bright.py"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@every_kind
def test_nothing_in_the_file_is_left_of_the_template(words: str, folder: Path) -> None:
    new(words.replace("bright", "two_words2"))
    text = (folder / "two_words2.py").read_text()
    assert "my_" not in text and "My" not in text
    (cls,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert cls.name == "TwoWords2"
    assert text.count("two_words2") == 2  # in the module's docstring, and where it is registered


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encoder rate", "encoder 'rate' already exists: choose another name"),
        ("backbone csnn", "backbone 'csnn' already exists: choose another name"),
        (
            "encoder MyCoding",
            "a plug-in's name must be in snake case like my_coding, got 'MyCoding'",
        ),
        ("encoder _own", "a plug-in's name must be in snake case like my_coding, got '_own'"),
        (
            "encoder two__words",
            "a plug-in's name must be in snake case like my_coding, got 'two__words'",
        ),
        ("encoder größe", "a plug-in's name must be in snake case like my_coding, got 'größe'"),
        ("encoder ../out", "a plug-in's name must be in snake case like my_coding, got '../out'"),
        ("encoder 2nd", "a plug-in's name must be in snake case like my_coding, got '2nd'"),
        ("encoder lambda", "'lambda' cannot name a plug-in: lambda is a keyword of Python"),
        ("encoder true", "'true' cannot name a plug-in: True is a keyword of Python"),
        (f"encoder {'x' * 41}", "a plug-in's name has at most 40 characters, got 41"),
        ("encoder random", "random.py would hide the module 'random': choose another name"),
        ("encoder snntorch", "snntorch.py would hide the module 'snntorch': choose another name"),
        ("encoder setting", "class Setting would hide what the file uses: choose another name"),
        ("encoder value_error", "class ValueError would hide what the file uses: choose another"),
        ("backbone spiking_head", "class SpikingHead would hide what the file uses"),
        ("encoder bright --kind pixels", "unknown kind of encoder 'pixels'; did you mean 'pixel'?"),
        ("encoder bright --folder nowhere", "cannot write bright.py: there is no folder 'nowhere'"),
    ],
)
def test_an_invalid_name_or_folder_is_refused_and_nothing_written(
    words: str, message: str, folder: Path
) -> None:
    assert refusal(words).startswith(message)
    assert list(folder.iterdir()) == []


@every_kind
def test_no_file_is_overwritten(words: str, folder: Path) -> None:
    (folder / "bright.py").write_text("mine")
    assert refusal(words) == "bright.py already exists and is not overwritten"
    (folder / "bright.py").unlink()
    (folder / "bright.py").symlink_to("elsewhere.py")
    assert refusal(words) == "bright.py already exists and is not overwritten"
    assert not (folder / "elsewhere.py").exists()


def test_the_folder_may_be_named_and_have_blanks(folder: Path) -> None:
    (folder / "my codes").mkdir()
    result = CliRunner().invoke(app, ["new", "encoder", "bright", "--folder", "my codes"])
    assert "  codingbench run --encoders './my codes/bright.py:Bright',direct\n" in result.stdout
    assert ENCODERS.resolve("./my codes/bright.py:Bright").label == "bright"


def test_a_new_coding_is_compared_at_once(folder: Path) -> None:
    new("encoder bright")
    new("encoder other --kind feature")
    small = "--backbones csnn[width=4] --T 2 --train-samples 100 --test-samples 50 --epochs 1"
    codings = "./bright.py:Bright[gain=0.5|1],./other.py:Other,direct"
    done = CliRunner().invoke(
        app, ["run", "--encoders", codings, *small.split(), "--results", "results"]
    )
    assert done.exit_code == 0, done.output
    cells = Store(folder / "results").read("cells")
    assert sorted(cells["encoder"]) == ["bright", "bright[gain=0.5]", "direct", "other"]
