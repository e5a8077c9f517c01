"""The model card of an exported file: contents, results, training and limits."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from codingbench.analysis.commands import commands
from codingbench.cells.network import network_of
from codingbench.energy import DEFAULT_PRICING, EXACT_AND_PAPER
from codingbench.export.model import Model
from codingbench.export.usage import snippet
from codingbench.runtime.formatting import at_least, three_digits
from codingbench.schema import ELEMENT_COUNTS, VALUE_CLASSES

_HOLDS: Final = {
    "state_dict": "its parameters and buffers, for `torch.load(..., weights_only=True)`",
    "nir": "its graph in the Neuromorphic Intermediate Representation (NIR), for `nir.read`",
}
_FORM_LIMITS: Final = {
    "state_dict": (
        "The file can be loaded only with codingbench and the same encoder and backbone code "
        "(hashes: {encoder_code}, {backbone_code}).",
    ),
    "nir": (
        "Time is discrete. The metadata of the file describe the update rule and the input of the "
        "graph; with another rule or time step the network behaves differently.",
        "Batch norm is folded into the weights, which are in double precision. The network cannot "
        "be trained further as it was.",
    ),
}


def model_card(form: str, model: Model, shown: Sequence[str]) -> str:
    """Return the card as Markdown; ``shown`` says what reading the file back has verified."""
    cell, info = model.job.cell, model.job.info
    (command,) = commands([model.row], [model.results] if model.results else [])
    return f"""\
# {cell.encoder} on {cell.network}: {info.title}, T = {cell.num_steps}

A spiking neural network that classifies images of {info.title}: {info.num_classes} classes, \
{info.channels} x {info.height} x {info.width} pixels, in {cell.num_steps} time steps.
`{model.file}` holds {_HOLDS[form]}; weights {model.weights}. The prediction is the class with the
largest mean logit over the steps.

{_table(_coordinates(model))}

## Results

{_table(_results(model))}

{_bullets(_notes(model))}

## Loading

```python
{snippet(form, model)}```

{_bullets(shown)}

## Training

Recipe `{cell.recipe}`: {model.job.recipe.title}. Source: {model.job.recipe.source}.

{_table(_settings(model))}

To train it again (the cell gets the same key if code and data are unchanged):

```
{command}
```

{_table(_circumstances(model))}

## Limits

{_bullets(_limits(form, model))}
"""


def _coordinates(model: Model) -> Iterable[tuple[str, object]]:
    cell = model.job.cell
    yield "cell", model.row["key"]
    for name, plugin in zip(("encoder", "backbone", "neuron"), model.job.plugins(), strict=False):
        settings = ", ".join(f"{param} = {value}" for param, value in plugin.params)
        yield name, f"{plugin.label} ({settings})" if settings else plugin.label
    yield "data set", f"{cell.dataset} (licence: {model.job.info.licence})"
    yield "hash of the data files", model.row["dataset_fingerprint"]
    yield "T", cell.num_steps
    yield "seed", cell.seed
    yield "precision", cell.precision


def _results(model: Model) -> Iterable[tuple[str, object]]:
    row = model.row
    images = f"of {row['test_samples']:,} test images"
    yield "accuracy after the last epoch", f"{row['accuracy']:.2%} {images}"
    selected = f"accuracy of epoch {row['selected_epoch']}, the best in validation"
    yield selected, f"{row['selected_accuracy']:.2%} {images}"
    yield "firing rate", f"{row['firing_rate']:.2%} (spikes per neuron, step and image)"
    for pricing in EXACT_AND_PAPER:
        energy = at_least(float(pricing.energy_uj(row)), bool(row["uncounted"]))
        yield f"energy, convention `{pricing.convention.name}`", f"{energy} µJ per image"
    yield (
        "parameters",
        f"{row['parameters']:,}, {row['encoder_parameters']:,} of them in the encoder",
    )
    for name in VALUE_CLASSES:
        operations = three_digits(row[f"effective_{name}"] / row["images"])
        yield f"synaptic operations on {name} inputs", f"{operations} per image"
    for name, what in ELEMENT_COUNTS.items():
        yield f"`{name}`", f"{three_digits(row[name] / row['images'])} per image: {what}"


def _notes(model: Model) -> Iterable[str]:
    chip = DEFAULT_PRICING.technology
    for pricing in EXACT_AND_PAPER:
        yield f"Energy `{pricing.convention.name}`: {pricing.convention.summary}."
    yield (
        f"Priced at {chip.name}: {chip.mac_pj} pJ a multiply-accumulate, {chip.ac_pj} pJ an "
        f"accumulate ({chip.source}). Energy is computed from counted operations, not measured."
    )
    if model.row["uncounted"]:
        yield f"The energies are lower bounds: not counted is {model.row['uncounted']}."
    if model.is_selected:
        yield "Firing rate, energies and operations belong to the weights after the last epoch."


def _settings(model: Model) -> Iterable[tuple[str, object]]:
    recipe, cell = model.job.recipe, model.job.cell
    yield "epochs", cell.epochs
    yield "batch size", cell.batch_size
    yield (
        "training images",
        f"{cell.train_samples:,}, {model.row['val_samples']:,} of them for validation",
    )
    yield "label smoothing", recipe.label_smoothing
    for section in ("optimizer", "schedule", "augment", "loss", "weight_average"):
        if chosen := getattr(recipe, section):
            settings = asdict(chosen).items()
            yield section, ", ".join(f"{name} = {value}" for name, value in settings)


def _circumstances(model: Model) -> Iterable[tuple[str, object]]:
    row = model.row
    changed = " (with uncommitted changes)" if row["git_dirty"] else ""
    yield "codingbench", f"{row['codingbench_version']}"
    yield "commit", f"{row['git_commit']}{changed}" if row["git_commit"] else "not known"
    for name in ("python", "torch", "snntorch", "cuda"):
        if row[f"{name}_version"]:
            yield name, row[f"{name}_version"]
    yield "device", f"{row['device']}: {row['device_name']}"
    yield "neurons", row["neuron_backend"]
    yield "finished", row["finished_at"]


def _limits(form: str, model: Model) -> Iterable[str]:
    cell = model.job.cell
    yield (
        "This is one network from one seed; another seed gives a different accuracy. It was "
        "trained with the recipe and epochs above to compare codings, not for the best accuracy."
    )
    yield "It was trained on images of this size and kind; its output for others is meaningless."
    if not network_of(model.job).encoder.is_deterministic:  # parameters may decide it
        yield f"{cell.encoder} is a random coding: predictions depend on the generator."
    for text in _FORM_LIMITS[form]:
        yield text.format(**model.row)


def _table(rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
