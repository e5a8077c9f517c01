"""``codingbench show KEY --plot``: the spikes of a trained network for one test image."""

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

import codingbench as cb
from codingbench.cli.show import show
from codingbench.errors import CodingbenchError, SpecError
from codingbench.inspection.raster import Raster, raster_of
from codingbench.inspection.raster_picture import evenly_spaced
from codingbench.store.folder import Store

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = 10
SMALL: dict[str, Any] = {
    "T": 3, "epochs": 1, "train_samples": 100, "test_samples": IMAGES, "quiet": True,
}  # fmt: skip

app = typer.Typer()
app.command()(show)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("raster")
    cb.run(encoders=["gac", "signed_rate"], results=folder, **SMALL)
    return Store(folder)


def key_of(store: Store, encoder: str) -> str:
    cells = store.read("cells")
    return str(cells.loc[cells["encoder"] == encoder, "key"].item())


def rasters(store: Store, encoder: str) -> list[Raster]:
    key = key_of(store, encoder)
    return [raster_of(store, key, number, None) for number in range(IMAGES)]


def test_the_spikes_of_all_images_are_those_that_the_cell_counted(store: Store) -> None:
    found = rasters(store, "gac")
    rows = store.read("layers", [key_of(store, "gac")])
    for place, layer in enumerate(found[0].layers):
        kind = "code" if layer.is_code else "neuron"
        own = rows[(rows["layer"] == layer.name) & (rows["kind"] == kind)].sort_values("step")
        drawn = sum((raster.layers[place].spikes != 0).sum(1) for raster in found)
        assert torch.as_tensor(drawn).tolist() == own["spikes"].tolist(), layer.name
        assert layer.spikes.shape == (3, own["neurons"].iloc[0])


def test_the_mean_of_the_logits_gives_the_predictions_of_the_cell(store: Store) -> None:
    found = rasters(store, "gac")
    stored = store.read("predictions", [key_of(store, "gac")]).sort_values("image")
    assert [int(raster.mean_logits[-1].argmax()) for raster in found] == [*stored["prediction"]]
    assert [raster.label for raster in found] == stored["label"].tolist()


def test_layers_are_in_the_order_in_which_they_run(store: Store) -> None:
    (raster,) = rasters(store, "gac")[:1]
    names = [layer.name for layer in raster.layers]
    assert names[:2] == ["encoder.neuron", "encoder.code"] and names[-1] == "backbone.head.neuron"


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(
    store: Store, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    path = tmp_path / f"raster.{suffix}"
    done = CliRunner().invoke(
        app, ["signed_rate", "--results", str(store.folder), "--plot", str(path), "--image", "2"]
    )
    assert done.exit_code == 0, done.exception
    assert "layers" in done.stdout and path.read_bytes().startswith(magic)


def test_a_vector_picture_names_layers_steps_and_the_image(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "raster.svg"
    CliRunner().invoke(app, ["gac", "--results", str(store.folder), "--plot", str(path)])
    drawn = path.read_text()
    for text in ("gac · csnn · T=3", "test image 0: class", "blocks.0", "of 12,544 neurons"):
        assert text in drawn, text


def refused(error: type[Exception], message: str, *arguments: object) -> None:
    run = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(run.exception, error)
    with pytest.raises(error, match=message):
        raise run.exception


def test_what_cannot_be_drawn_is_refused(store: Store, tmp_path: Path) -> None:
    at = ("--results", store.folder, "--plot")
    refused(SpecError, "from 0 to 9, the last", "gac", *at, tmp_path / "x.png", "--image", IMAGES)
    refused(SpecError, r"must end in .png", "gac", *at, tmp_path / "x.jpeg")
    assert not list(tmp_path.iterdir())


def test_a_cell_without_weights_is_refused_in_a_line(tmp_path: Path) -> None:
    cb.run(encoders="rate", results=tmp_path, weights=False, **SMALL)
    plot = ("--plot", tmp_path / "x.png")
    refused(
        CodingbenchError, "the weights of .* were not kept", "rate", "--results", tmp_path, *plot
    )


def test_large_layers_are_thinned_evenly() -> None:
    spikes = torch.arange(10.0).repeat(2, 1)
    assert evenly_spaced(spikes, 4).tolist() == [[0, 3, 6, 9]] * 2
    assert evenly_spaced(spikes, 10) is spikes
