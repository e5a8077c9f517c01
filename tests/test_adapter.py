"""Encoders of other libraries as codings: the same spikes, found axes, refusals, and keys."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snntorch import spikegen
from torch import Generator, Tensor
from typer.testing import CliRunner

from codingbench.backbone import build_network
from codingbench.cli.main import app
from codingbench.conformance.engine import cost_per_image, counted
from codingbench.conformance.examination import examine, plugin_under_test
from codingbench.conformance.independence import own_image
from codingbench.encoder import Task
from codingbench.errors import SpecError
from codingbench.plugins.adapter import is_of_library
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.store.folder import Store

STEPS = 3
TASK = Task(STEPS, 10, 2, 4, 6, (0.5,) * 2, (0.25,) * 2)
MINE = '''
import random
import numpy as np
import torch

def batch_first(x, T):
    """The pixel at step 1, and nothing later."""
    return torch.stack([x, *[0 * x] * (T - 1)], 1)

def time_last(images, how_many, level=0.5):
    return torch.stack([(images > level).float()] * how_many, -1)

def one_step(images):
    return (images > torch.rand_like(images)).float()

def of_numpy(images, num_steps):
    return torch.from_numpy(np.random.rand(num_steps, *images.shape)).float()

def flattened(images, num_steps):
    return images.flatten(1).expand(num_steps, -1, -1)

def nothing(images, num_steps):
    return None

class Counting(torch.nn.Module):
    """Spike k at step k of each call sequence; needs a reset before each batch."""
    def __init__(self, first=1):
        super().__init__()
        self.first, self.step = first, 0
    def reset(self):
        self.step = 0
    def forward(self, images):
        self.step += 1
        return torch.full_like(images, float(self.step == self.first))
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return str(file)


def encoder(text: str, task: Task = TASK) -> Any:
    plugins = ENCODERS.resolve(text), BACKBONES.resolve("csnn[width=2]")
    return build_network(*plugins, _large(task), seed=0).encoder


def _large(task: Task) -> Task:
    return Task(task.num_steps, 10, 2, 8, 8, task.mean, task.std)


def images() -> Tensor:
    return torch.rand(4, 2, 8, 8, generator=Generator().manual_seed(0))


def code(text: str, seed: int = 0) -> Tensor:
    spk: Tensor = encoder(text).spikes(images(), Generator().manual_seed(seed))
    return spk


def seeded(seed: int) -> None:
    """Seed the global generator as the adapter does: from one draw of the cell's generator."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=Generator().manual_seed(seed))))


def test_functions_of_snntorch_give_their_own_spikes() -> None:
    with torch.random.fork_rng():
        seeded(5)
        expected = spikegen.rate(images(), num_steps=STEPS, gain=0.5)
    assert torch.equal(code("snntorch.spikegen:rate[gain=0.5]", seed=5), expected)
    latency = spikegen.latency(images(), num_steps=STEPS, normalize=True, linear=True)
    assert torch.equal(code("snntorch:latency[normalize=true,linear=true]"), latency)
    repeated = spikegen.delta(images().expand(STEPS, -1, -1, -1, -1), threshold=0.3)
    assert torch.equal(code("snntorch:delta[gets=sequence,threshold=0.3]"), repeated)


def test_classes_of_spikingjelly_give_their_own_spikes() -> None:
    from spikingjelly.activation_based.encoding import LatencyEncoder, PoissonEncoder

    latency = LatencyEncoder(STEPS, enc_function="log")
    expected = torch.stack([latency(images()) for _ in range(STEPS)])
    assert torch.equal(code("spikingjelly:LatencyEncoder[enc_function=log]"), expected)
    with torch.random.fork_rng():
        seeded(3)
        drawn = torch.stack([PoissonEncoder()(images()) for _ in range(STEPS)])
    assert torch.equal(code("spikingjelly:PoissonEncoder", seed=3), drawn)


def test_every_order_of_axes_is_found(mine: str) -> None:
    x = images()
    first = code(f"{mine}:batch_first")
    assert torch.equal(first[0], x) and not first[1:].any()
    last = code(f"{mine}:time_last[T=how_many,level=0.25]")
    assert torch.equal(last, (x > 0.25).float().expand(STEPS, -1, -1, -1, -1))
    assert encoder(f"{mine}:batch_first").emits == "graded"
    assert encoder(f"{mine}:time_last[T=how_many]").emits == "binary"


def test_an_encoder_with_a_state_begins_anew_with_each_batch(mine: str) -> None:
    network = encoder(f"{mine}:Counting[first=2]")
    for _ in range(2):
        found = network.spikes(images(), Generator())
        assert found.mean((1, 2, 3, 4)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["one_step", "of_numpy"])
def test_random_numbers_come_from_the_generator_of_the_cell(mine: str, name: str) -> None:
    before: Any = torch.get_rng_state(), np.random.get_state()
    first, again, other = (code(f"{mine}:{name}", seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    numpy_state: Any = np.random.get_state()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(numpy_state[1], before[1][1])
    assert not encoder(f"{mine}:{name}").is_deterministic


@pytest.mark.parametrize(
    "text, message",
    [
        ("{mine}:time_last", "needs a value for how_many: write .*[how_many=...]"),
        ("{mine}:flattened", "returns shape .* expected .* name the parameter that takes T"),
        ("{mine}:nothing", "must return a tensor, got NoneType"),
        ("{mine}:one_step[gets=video]", "unknown gets 'video'"),
        ("{mine}:one_step[axes=TCBHW]", "unknown axes 'TCBHW'"),
        ("spikingjelly:PopEncoder", "needs a value for obs_dim, pop_dim, spike_ts, mean_range"),
        ("snntorch:latency", "cannot be called: Exception: The maximum value"),
    ],
)
def test_what_cannot_be_called_is_refused_in_one_line(mine: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as caught:
        encoder(text.format(mine=mine))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("snntorch:rat", "unknown function or class in snntorch.spikegen: 'rat'; did you mean"),
        ("snntorch:rate[gian=1]", "unknown parameter of encoder snntorch:rate 'gian'; did you"),
        ("{mine}:Nothing", "unknown class in .*mine.py: 'Nothing'"),
        ("pathlib:Path", "Path is not a subclass of codingbench.encoder.Encoder"),
    ],
)
def test_names_that_do_not_exist_are_refused(mine: str, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        ENCODERS.resolve(text.format(mine=mine))


def test_long_and_short_names_are_one_coding() -> None:
    texts = ("snntorch.spikegen:rate[gain=1]", "snntorch:rate", "adapt:snntorch.spikegen.rate")
    plugins = [ENCODERS.resolve(text) for text in texts]
    assert {plugin.label for plugin in plugins} == {"snntorch:rate"}
    assert len({plugin.cls for plugin in plugins}) == 1
    assert ENCODERS.resolve(plugins[0].label) == plugins[0]


def test_a_changed_file_or_version_gives_another_key(
    mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ENCODERS.resolve(f"{mine}:one_step").code
    Path(mine).write_text(MINE.replace("torch.rand_like", "0.9 * torch.rand_like"))
    assert ENCODERS.resolve(f"{mine}:one_step").code != before


@pytest.mark.parametrize(
    "text, outcome",
    [
        ("snntorch:latency[normalize=true]", "failed"),
        ("snntorch:latency[normalize=true,linear=true]", "passed"),
    ],
)
def test_check_finds_that_log_latency_depends_on_the_batch(text: str, outcome: str) -> None:
    report = examine(plugin_under_test(text), checks=[own_image])
    assert [finding.outcome for finding in report.findings] == [outcome]


def test_the_work_of_other_encoders_is_counted() -> None:
    """``repeat``, which snntorch uses, puts steps together and takes none out."""
    tested = plugin_under_test("snntorch:rate")
    report = examine(tested, checks=[counted, cost_per_image])
    assert [finding.outcome for finding in report.findings] == ["passed", "passed"]


def test_run_and_inspect_take_such_encoders(tmp_path: Path) -> None:
    grid = "--encoders snntorch:rate --T 2 --epochs 1 --train-samples 40 --test-samples 20"
    rest = f"--batch-size 20 --backbones csnn[width=2] --workers 1 --results {tmp_path}"
    result = CliRunner().invoke(app, ["run", *grid.split(), *rest.split()])
    assert result.exit_code == 0, result.output
    assert "snntorch:rate" in result.stdout
    again = CliRunner().invoke(app, ["verify", "--evaluate", "all", "--results", str(tmp_path)])
    assert again.exit_code == 0 and "all numbers equal" in again.stdout


def test_a_function_of_a_file_is_given_again_after_training(tmp_path: Path, mine: str) -> None:
    results = tmp_path / "results"
    grid = f"--encoders {mine}:time_last[T=how_many] --T 2 --epochs 1 --train-samples 40"
    rest = f"--test-samples 20 --batch-size 20 --backbones csnn[width=2] --results {results}"
    result = CliRunner().invoke(app, ["run", *grid.split(), *rest.split(), "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert set(Store(results).read("cells")["encoder"]) == {"time_last[T=how_many]"}
    verify = ["verify", "--evaluate", "all", "--results", str(results)]
    missing = CliRunner().invoke(app, verify)
    assert missing.exit_code == 1 and "--plugin ./FILE.py:Class" in missing.stdout
    given = CliRunner().invoke(app, [*verify, "--plugin", f"{mine}:time_last"])
    assert given.exit_code == 0 and "all numbers equal" in given.stdout


def test_only_names_of_known_libraries_are_imported_for_a_strangers_label() -> None:
    assert is_of_library("norse:poisson_encode[f_max=1000]")
    assert not any(map(is_of_library, ("os:system", "rate", "snntorch.spikegen:rate", "./a.py:f")))
