"""Neurons as an axis of the grid: cells, keys, selection, comparison, reproduction."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import codingbench as cb
from codingbench.backbone import Backbone, Network, SpikingHead, build_network, conv_bn
from codingbench.cells.grid import Grid, Job
from codingbench.cli.main import app
from codingbench.encoder import Task
from codingbench.errors import SpecError
from codingbench.neurons import MultiStepLeaky, Neuron
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Plugin

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = Task(2, 10, 1, 16, 16, (0.5,), (0.25,))
SMALL: dict[str, Any] = {
    "encoders": "direct",
    "backbones": "csnn[width=4]",
    "T": 2,
    "epochs": 1,
    "train_samples": 60,
    "test_samples": 40,
    "device": "cpu",
    "quiet": True,
}


def jobs(*neurons: str, **axes: Any) -> list[Job]:
    return Grid(encoders=("direct",), neurons=neurons, **axes).expand()


def network(backbone: str, neuron: str | None, encoder: str = "direct") -> Network:
    chosen = NEURONS.resolve(neuron) if neuron else None
    return build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), TASK, 0, chosen)


def neurons_of(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module.modules() if isinstance(part, MultiStepLeaky)]


# --- the grid -------------------------------------------------------------------------------------


def test_without_neurons_keys_are_those_of_before() -> None:
    (plain,) = Grid(encoders=("direct",)).expand()
    (own,) = jobs("default")
    assert plain.key("d1") == own.key("d1") and plain.cell.neuron == "default"
    assert own.config_hash() == plain.config_hash() and "neuron" not in str(own._coordinates())


def test_every_model_and_value_of_a_parameter_is_a_cell_of_its_own() -> None:
    found = jobs("default", "lif", "lif[beta=0.9|0.8]", "spikingjelly_lif")
    assert [job.cell.neuron for job in found] == [
        *("default", "lif", "lif[beta=0.9]", "lif[beta=0.8]", "spikingjelly_lif"),
    ]
    assert len({job.key("d1") for job in found}) == len({job.config_hash() for job in found}) == 5
    assert str(found[2].cell) == "direct · csnn · lif[beta=0.9] · T=4 · seed 0"


def test_an_unknown_neuron_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SpecError, match="unknown neuron 'lfi'; did you mean 'lif'"):
        jobs("lfi")


# --- networks -------------------------------------------------------------------------------------


def test_a_model_replaces_the_neurons_of_the_backbone_and_of_the_coding() -> None:
    own, other = network("csnn", None), network("csnn", "lif[beta=0.9]")
    assert set(neurons_of(own)) == {"MultiStepLeaky"} and set(neurons_of(other)) == {"Lif"}
    assert len(neurons_of(own.encoder)) == len(neurons_of(other.encoder)) == 1
    assert "lif[beta=0.9]" in repr(other) != repr(own)


def test_the_initial_weights_do_not_depend_on_the_neurons() -> None:
    own, other = (network("csnn", name).state_dict() for name in (None, "lif[beta=0.9]"))
    assert all(torch.equal(own[name], other[name]) for name in own if name.endswith("weight"))


@pytest.mark.parametrize("backbone", ["vgg9", "sew_resnet18", "spikformer", "ms_resnet9"])
def test_the_first_neuron_that_passes_the_code_on_stays(backbone: str) -> None:
    kinds = neurons_of(network(backbone, "lif").backbone)
    assert kinds.count("MultiStepLeaky") == 1 and kinds.count("Lif") == len(kinds) - 1 > 1


def test_a_layer_that_asks_for_half_the_threshold_gets_half_of_the_models() -> None:
    attention = network("spikformer", "lif[threshold=0.6]").backbone.get_submodule("blocks.0")
    assert float(attention.attention.threshold) == pytest.approx(0.3)  # type: ignore[arg-type, union-attr]


def test_spikingjelly_lif_on_spikformer_is_the_network_as_published() -> None:
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    models = (None, "spikingjelly_lif")
    runs = [network("spikformer", name)(images, torch.Generator()) for name in models]
    assert torch.equal(*runs)


class OwnNeurons(Backbone):
    """Makes its neurons itself."""

    stem_channels = 4

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.neuron, self.linear = MultiStepLeaky(), nn.Linear(4, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, 4, kernel_size=3)

    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.neuron(cur).mean((3, 4)))
        return logits


def test_a_backbone_that_makes_its_own_neurons_refuses_another_model() -> None:
    backbone = Plugin("own", OwnNeurons, (), "c")
    reason = r"own makes its own neurons without make_neuron\(\), so it cannot have the neurons lif"
    with pytest.raises(ValueError, match=reason):
        build_network(ENCODERS.resolve("rate"), backbone, TASK, 0, NEURONS.resolve("lif"))


class NoThreshold(Neuron):
    def forward(self, cur: Tensor) -> Tensor:
        return (cur > 1).to(cur.dtype)


def test_a_model_without_threshold_is_refused_where_a_layer_asks_for_one() -> None:
    neuron, backbone = Plugin("plain", NoThreshold, (), "c"), BACKBONES.resolve("spikformer")
    with pytest.raises(ValueError, match=r"a neuron with threshold=1\.0, which plain cannot"):
        build_network(ENCODERS.resolve("rate"), backbone, TASK, 0, neuron)


class Seen(Backbone):
    stem_channels = 4

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.head = SpikingHead(self, 4, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, 4, kernel_size=3)

    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.head(cur)
        return logits


def test_a_backbone_of_ones_own_has_the_axis_without_a_line_of_code() -> None:
    built = build_network(
        ENCODERS.resolve("rate"), Plugin("seen", Seen, (), "c"), TASK, 0, NEURONS.resolve("lif")
    )
    assert neurons_of(built) == ["Lif"]


# --- from the run to the comparison ---------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neurons") / "results"
    cb.run(**SMALL, neurons=["default", "lif[beta=0.9,reset=subtract]"], seeds=2, results=folder)
    return folder


def read(results: Path, *arguments: str) -> Any:
    run = CliRunner().invoke(app, [*arguments, "--results", str(results), "--format", "json"])
    assert run.exit_code == 0, run.output
    return json.loads(run.stdout)


OTHER = "lif[beta=0.9,reset=subtract]"


def test_the_tables_and_the_leaderboard_tell_neurons_apart(results: Path) -> None:
    rows = read(results, "leaderboard")
    assert [(row["neuron"], row["seeds"], row["rank"]) for row in rows] == [
        ("default", 2, 1),
        (OTHER, 2, 1),
    ]
    cells = cb.Store(results).read("cells")
    is_own = cells["neuron"] == "default"
    assert cells.loc[is_own, "neuron_code"].isna().all()
    assert set(cells.loc[~is_own, "neuron_code"]) == {NEURONS.resolve("lif").code}
    assert set(cb.Store(results).read("layers")["neuron"]) == {"default", OTHER}
    assert not any(row["stale"] for row in rows)


def test_neurons_are_selected_and_compared(results: Path) -> None:
    assert [row["neuron"] for row in read(results, "leaderboard", "--neurons", OTHER)] == [OTHER]
    (row,) = read(results, "compare", "--between", "neurons")
    assert (row["between"], row["a"], row["b"], row["seeds"]) == ("neurons", "default", OTHER, 2)
    assert row["neuron"] == f"default and {OTHER}" and not row["mixed_code"]
    found = cb.load(results).leaderboard(neurons="default")
    assert list(found["neuron"]) == ["default"]


def test_a_command_of_the_leaderboard_names_the_neuron_unless_it_is_the_backbones(
    results: Path,
) -> None:
    run = CliRunner().invoke(
        app, ["leaderboard", "--results", str(results), "--format", "markdown"]
    )
    lines = [line for line in run.stdout.splitlines() if "codingbench run" in line]
    assert [f"--neurons '{OTHER}'" in line for line in lines] == [False, True]
    assert "--neurons default" not in run.stdout and "Leaky" in run.stdout


def test_a_trained_network_is_restored_with_its_neurons(results: Path) -> None:
    cells = cb.Store(results).read("cells")
    for neuron, kind in (("default", "MultiStepLeaky"), (OTHER, "Lif")):
        key = cells.loc[cells["neuron"] == neuron, "key"].iloc[0]
        assert set(neurons_of(cb.load(results).network(key))) == {kind}


def test_a_configuration_file_names_neurons(tmp_path: Path) -> None:
    config = tmp_path / "grid.toml"
    config.write_text('encoders = ["direct"]\nneurons = ["default", "lif[beta=0.5|0.9]"]\n')
    run = CliRunner().invoke(
        app, ["run", "--config", str(config), "--dry-run", "--results", str(tmp_path / "r")]
    )
    assert run.exit_code == 0 and "3 cells" in run.stdout and "neuron" in run.stdout


# --- cost and training of every model -------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> cb.Results:
    """One cell of every model; currents of a fresh network are small, hence the thresholds."""
    names = [
        *("lif[threshold=0.3]", "spikingjelly_lif[threshold=0.2]", "plif[threshold=0.2]"),
        *("clif[threshold=0.3]", "ilif[threshold=0.3,levels=3]"),
    ]
    folder = tmp_path_factory.mktemp("models") / "results"
    return cb.run(**SMALL, neurons=names, results=folder)


def test_every_model_trains_and_is_measured(trained: cb.Results) -> None:
    cells = trained.store.read("cells")
    assert {name.partition("[")[0] for name in cells["neuron"]} == set(NEURONS.names())
    assert (cells["uncounted"] == "").all() and (cells["spikes"] > 0).all()
    assert (cells["firing_rate"] < 3).all() and cells["effective_binary"].gt(0).all()


def test_integer_spikes_are_priced_as_their_sub_steps(trained: cb.Results) -> None:
    """All models run the same network, so they differ in the factor D = 3 alone."""
    cells = trained.store.read("cells").set_index("neuron")
    ilif, lif = cells.loc["ilif[levels=3,threshold=0.3]"], cells.loc["lif[threshold=0.3]"]
    assert ilif["neuron_updates"] == 3 * lif["neuron_updates"]
    assert ilif["neurons"] == lif["neurons"]
    layers = trained.store.read("layers")
    convs = layers[layers["layer"].str.contains(r"blocks\.\d\.convs|blocks\.0\.shortcut")]
    of = {
        name: convs[(convs["neuron"] == name) & (convs["kind"] == "synapse")]
        for name in (ilif.name, lif.name)
    }
    # the shortcut of the first block reads the code, whose neurons are integer, too
    assert set(of[ilif.name]["input_class"]) == {"binary"}
    dense = [rows["dense_binary"].tolist() for rows in of.values()]
    assert dense[0] == [3 * count for count in dense[1]] and dense[1]


# --- models of one's own --------------------------------------------------------------------------

OWN = """
from codingbench import Neuron, register_neuron
from codingbench.neurons import triangle

@register_neuron("spiky")
class Spiky(Neuron):
    def __init__(self, *, threshold: float = 0.3) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, cur):
        return triangle(cur - self.threshold)
"""


def test_a_model_in_a_file_is_run_kept_and_loaded_again(tmp_path: Path) -> None:
    file, results = tmp_path / "spiky.py", tmp_path / "results"
    file.write_text(OWN)
    found = cb.run(**SMALL, neurons=f"{file}:Spiky[threshold=0.2]", results=results)
    (cell,) = found.store.read("cells").to_dict("records")
    assert cell["neuron"] == "spiky[threshold=0.2]" and cell["neuron_updates"] > 0
    assert (results / "plugins" / cell["neuron_code"]).is_dir()
    parts = cb.load(results).network(cell["key"]).modules()
    assert {part.threshold for part in parts if type(part).__name__ == "Spiky"} == {0.2}
    assert cb.load(results).network(cell["key"], plugins=[f"{file}:Spiky"])
    run = CliRunner().invoke(
        app, ["leaderboard", "--results", str(results), "--format", "markdown"]
    )
    assert "spiky.py:Spiky[threshold=0.2]" in run.stdout
    assert "not part of codingbench: neuron spiky" in run.stdout
    file.write_text(OWN.replace("cur - self", "2 * cur - self"))
    assert list(cb.load(results).leaderboard()["stale"]) == [True]


def test_a_class_of_the_library_is_a_model_too(tmp_path: Path) -> None:
    found = cb.run(**SMALL, neurons=NEURONS.get("clif"), results=tmp_path)
    assert list(found.store.read("cells")["neuron"]) == ["clif"]
