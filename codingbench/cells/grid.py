"""The grid: every combination of data sets, codings, networks, T, recipes and seeds, as cells."""

import hashlib
import itertools
import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codingbench.datasets import DEFAULT_DATASET, DatasetInfo, get_info
from codingbench.errors import SpecError
from codingbench.plugins.specs import alternatives
from codingbench.recipes.recipe import Recipe, load_recipe
from codingbench.registry import (
    BACKBONES,
    DEFAULT_NEURON,
    ENCODERS,
    NEURONS,
    Plugin,
    Registry,
    network_name,
)

PROTOCOL = 2
"""Version of the engine, part of every key; raised when a change of the engine changes numbers.

Cells of an earlier protocol stay in the store, and the same grid gives new ones.
"""

_LARGE = 64  # pixels: on larger images the shipped backbones pool more than 64 positions

PRECISIONS = ("fp32", "bf16")
SEEDS = 2**32


@dataclass(frozen=True)
class Cell:
    """One training: its coordinates, as they stand in the tables."""

    dataset: str
    encoder: str
    backbone: str
    num_steps: int
    recipe: str
    epochs: int
    batch_size: int
    micro_batch: int  # images of one forward pass; fewer than batch_size where gradients add up
    train_samples: int
    test_samples: int
    precision: str
    seed: int
    neuron: str = DEFAULT_NEURON  # that of the backbone

    @property
    def network(self) -> str:
        """The backbone, and the model of its neurons if that is another than its own."""
        return network_name(self.backbone, self.neuron)

    def __str__(self) -> str:
        return f"{self.encoder} · {self.network} · T={self.num_steps} · seed {self.seed}"


@dataclass(frozen=True)
class Job:
    """A cell with its data set, plug-ins and recipe."""

    cell: Cell
    info: DatasetInfo
    encoder: Plugin
    backbone: Plugin
    recipe: Recipe
    neuron: Plugin | None = None  # None: the backbone's own

    def key(self, dataset_fingerprint: str) -> str:
        """Return 16 hex digits: a hash of everything that determines the cell's numbers.

        These are the coordinates, every parameter of the plug-ins, the code of their files, the
        recipe's content, the data set's files, and the engine's protocol.
        """
        decisive = {
            "protocol": PROTOCOL,
            "cell": self._coordinates(),
            "encoder": [self.encoder.params, self.encoder.code],
            "backbone": [self.backbone.params, self.backbone.code],
            "recipe": self.recipe.hash,
            "dataset": dataset_fingerprint,
        }
        if self.neuron is not None:
            decisive["neuron"] = [self.neuron.params, self.neuron.code]
        if not self._has_equal_classes():
            # until 0.7.0 these cells were validated on the largest classes only
            decisive["validation"] = "share of each class"
        if max(self.info.height, self.info.width) > _LARGE:
            # until 0.7.0 means over more than 64 positions were counted as currents
            decisive["counting"] = "means of spikes over any number of positions"
        return _digest(decisive)[:16]

    def _has_equal_classes(self) -> bool:
        balanced = self.info.balanced_train
        return balanced is None or self.cell.train_samples <= balanced

    def plugins(self) -> list[Plugin]:
        """Return the encoder, the backbone and the neuron, if it is not the backbone's own."""
        return [self.encoder, self.backbone, *([self.neuron] if self.neuron else [])]

    def config_hash(self) -> str:
        """Return 12 hex digits: a hash like the key's, but without code and data."""
        request = self._coordinates(), self.encoder.params, self.backbone.params, self.recipe.hash
        return _digest(request if self.neuron is None else (*request, self.neuron.params))[:12]

    def _coordinates(self) -> dict[str, object]:
        cell = dict(vars(self.cell))
        if cell["micro_batch"] == cell["batch_size"]:
            del cell["micro_batch"]  # keys from before micro-batches existed stay the same
        if self.neuron is None:
            del cell["neuron"]  # likewise, from before neurons could be chosen
        return cell


@dataclass(frozen=True)
class Grid:
    """The requested combinations, as the user writes them.

    One text may stand for several entries: ``rate[gain=1|2]`` gives two cells. Bounds that are
    None come from the recipe and the data set.

    Args:
        encoders: names with parameters, ``file.py:Class``, or ``package.module:Class``.
        backbones: likewise.
        neurons: likewise; ``default`` stands for those of the backbone.
        datasets: names in the catalogue, or files and folders (:mod:`codingbench.datasets.own`).
        num_steps: values of T, each at least 1.
        recipes: names, or paths of TOML files.
        seeds: each from 0 to 2^32 - 1.
        epochs: at least 1.
        batch_size: images per optimizer step, at least 1.
        micro_batch: images per forward pass, at least 1; at most ``batch_size`` have an effect.
        train_samples: training images, at least 2, balanced over the classes.
        test_samples: test images, at least 1, balanced over the classes.
        precision: ``fp32`` or ``bf16``.
        data_dir: where data sets are looked for first.
    """

    encoders: tuple[str, ...] = ("direct", "rate", "latency", "gac")
    backbones: tuple[str, ...] = ("csnn",)
    datasets: tuple[str, ...] = (DEFAULT_DATASET,)
    num_steps: tuple[int, ...] = (4,)
    recipes: tuple[str, ...] = ("quick",)
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    train_samples: int | None = None
    test_samples: int | None = None
    precision: str = "fp32"
    data_dir: Path | None = None
    neurons: tuple[str, ...] = (DEFAULT_NEURON,)

    def expand(self) -> list[Job]:
        """Return the jobs, each once; the data set varies slowest and the seed fastest.

        Raises:
            SpecError: a name, parameter or bound is not valid; nothing was trained.
        """
        self._check()
        infos = [
            get_info(entry, self.data_dir) for text in self.datasets for entry in _entries(text)
        ]
        _refuse_namesakes("data sets", ((info.name, info.address) for info in infos))
        encoders = _plugins("encoders", ENCODERS, self.encoders)
        backbones = _plugins("backbones", BACKBONES, self.backbones)
        neurons = _neurons(self.neurons)
        recipes = [self._bounded(load_recipe(name)) for name in self.recipes]
        _refuse_namesakes("recipes", ((recipe.name, recipe.hash) for recipe in recipes))
        axes: tuple[Iterable[Any], ...] = (
            infos,
            backbones,
            neurons,
            recipes,
            self.num_steps,
            encoders,
            self.seeds,
        )
        jobs = []
        for combination in itertools.product(*(dict.fromkeys(axis) for axis in axes)):
            info, backbone, neuron, recipe, num_steps, encoder, seed = combination
            cell = self._cell(info, encoder, backbone, neuron, num_steps, recipe, seed)
            jobs.append(Job(cell, info, encoder, backbone, recipe, neuron))
        return jobs

    def _bounded(self, recipe: Recipe) -> Recipe:
        return replace(
            recipe,
            epochs=self.epochs or recipe.epochs,
            batch_size=self.batch_size or recipe.batch_size,
        )

    def _cell(
        self,
        info: DatasetInfo,
        encoder: Plugin,
        backbone: Plugin,
        neuron: Plugin | None,
        num_steps: int,
        recipe: Recipe,
        seed: int,
    ) -> Cell:
        return Cell(
            dataset=info.name,
            encoder=encoder.label,
            backbone=backbone.label,
            num_steps=num_steps,
            recipe=recipe.name,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            micro_batch=min(self.micro_batch or recipe.batch_size, recipe.batch_size),
            train_samples=_within(self.train_samples, info.train_size, info, "train"),
            test_samples=_within(self.test_samples, info.test_size, info, "test"),
            precision=self.precision,
            seed=seed,
            neuron=DEFAULT_NEURON if neuron is None else neuron.label,
        )

    def _check(self) -> None:
        axes = ("encoders", "backbones", "neurons", "datasets", "num_steps", "recipes", "seeds")
        for name in axes:
            if not getattr(self, name):
                raise SpecError(f"{name} is empty: expected at least one")
        for t in self.num_steps:
            if t < 1:
                raise SpecError(f"T must be a whole number of at least 1, got {t}")
        for seed in self.seeds:
            if not 0 <= seed < SEEDS:
                raise SpecError(f"seeds must be from 0 to {SEEDS - 1}, got {seed}")
        # two training images: one to train with, one to validate with
        least = {
            "epochs": 1,
            "batch_size": 1,
            "micro_batch": 1,
            "train_samples": 2,
            "test_samples": 1,
        }
        for name, lowest in least.items():
            bound = getattr(self, name)
            if bound is not None and bound < lowest:
                raise SpecError(f"{name.replace('_', '-')} must be at least {lowest}, got {bound}")
        if self.precision not in PRECISIONS:
            raise SpecError(f"precision must be fp32 or bf16, got {self.precision!r}")


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _entries(dataset: str) -> list[str]:
    """Split a data set with several values of a parameter, as codings have, into its entries."""
    return alternatives(dataset) if "[" in dataset else [dataset]


def _plugins(axis: str, registry: Registry, texts: Iterable[str]) -> list[Plugin]:
    plugins = [registry.resolve(entry) for text in texts for entry in alternatives(text)]
    _refuse_namesakes(axis, ((plugin.label, plugin.cls) for plugin in plugins))
    return plugins


def _neurons(texts: Iterable[str]) -> list[Plugin | None]:
    """Return the models of neurons; None stands for those of the backbone."""
    named = [text for text in texts if text != DEFAULT_NEURON]
    own: list[Plugin | None] = [None] if len(named) < len(list(texts)) else []
    return [*own, *_plugins("neurons", NEURONS, named)]


def _refuse_namesakes(axis: str, entries: Iterable[tuple[str, Hashable]]) -> None:
    """Refuse different entries of one name: the tables could not distinguish them."""
    known: dict[str, Hashable] = {}
    for name, entry in entries:
        if known.setdefault(name, entry) != entry:
            raise SpecError(f"two different {axis} are named {name!r}; names must be unique")


def _within(requested: int | None, size: int, info: DatasetInfo, split: str) -> int:
    if requested is not None and requested > size:
        available = f"{info.name} has {size} {split} images"
        raise SpecError(f"{available}, but {requested} were requested")
    return size if requested is None else requested
