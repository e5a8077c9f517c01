"""Rows of the result tables, from what was measured in a cell."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from codingbench.backbone import Network
from codingbench.cells.grid import Job
from codingbench.energy import energy_uj
from codingbench.runtime.formatting import records
from codingbench.schema import COUNTS, TABLES
from codingbench.store import firing
from codingbench.store.learning import facts
from codingbench.training.evaluation import Evaluation
from codingbench.training.loop import Training

Row = dict[str, Any]


def coordinates(job: Job, key: str) -> Row:
    """Return the columns that identify a cell in every table."""
    return {"key": key, **vars(job.cell)}


def step_rows(layer_rows: list[Row], accuracy: list[float]) -> list[Row]:
    """Sum the layers of each step; energies include all steps up to it."""
    num_steps, images = len(accuracy), layer_rows[0]["images"]
    by_step: dict[int, list[Row]] = defaultdict(list)
    for row in layer_rows:
        by_step[row["step"]].append(row)
    neurons = {name: n for name, n in firing.sums(layer_rows).items() if name.endswith("neurons")}
    rows, totals = [], {"images": images, **dict.fromkeys(COUNTS, 0)}
    for step in range(1, num_steps + 1):
        sums, fired = _sums(by_step[step]), firing.sums(by_step[step]) | neurons
        totals |= {name: totals[name] + sums[name] for name in COUNTS}
        code = [row for row in by_step[step] if row["kind"] == "code"]
        rows.append(
            {
                "step": step,
                "is_prefix": step < num_steps,
                "accuracy": accuracy[step - 1],
                "images": images,
                "firing_rate": firing.rate(fired["spikes"], fired["neurons"] * images),
                **fired,
                "code_nonzero": sum(row["spikes"] for row in code),
                "code_values": sum(row["neurons"] * images for row in code),
                "energy_exact_uj": energy_uj(totals, "exact"),
                "energy_paper_uj": energy_uj(totals, "paper"),
                **sums,
            }
        )
    return rows


def cell_row(
    job: Job,
    network: Network,
    training: Training,
    evaluation: Evaluation,
    selected: Evaluation,
    layer_rows: list[Row],
    facts: Row,
) -> Row:
    """Return the final accuracies, the totals of the counts, and ``facts``.

    ``facts`` are the columns about provenance, time and memory.
    """
    fired = firing.sums(layer_rows)
    images = len(evaluation.labels)
    own = [
        p.numel() for name, p in network.encoder.named_parameters() if not name.startswith("stem.")
    ]
    return {
        "accuracy": evaluation.accuracy[-1],
        "val_accuracy": training.epoch_rows[-1]["val_accuracy"],
        "selected_epoch": training.selected_epoch,
        "selected_accuracy": selected.accuracy[-1],
        "evaluated_weights": "mean" if job.recipe.weight_average else "last",
        "num_classes": job.info.num_classes,
        "parameters": sum(p.numel() for p in network.parameters()),
        "encoder_parameters": sum(own),
        "code_channels": network.encoder.channels,
        "images": images,
        "firing_rate": firing.rate(fired["spikes"], fired["neurons"] * images * job.cell.num_steps),
        **fired,
        "images_per_s": training.images_per_s,
        "train_wall_s": training.wall_s,
        "recipe_hash": job.recipe.hash,
        "encoder_code": job.encoder.code,
        "backbone_code": job.backbone.code,
        "neuron_code": job.neuron.code if job.neuron else None,
        **_sums(layer_rows),
        **facts,
    }


def prediction_table(key: str, evaluation: Evaluation) -> pa.Table:
    """Return one row per test image: its label, its prediction and the margin."""
    count = len(evaluation.labels)
    columns = {
        "key": [key] * count,
        "image": range(count),
        "label": evaluation.labels.numpy(),
        "prediction": evaluation.predictions.numpy(),
        "margin": evaluation.margins.numpy(),
    }
    schema = TABLES["predictions"]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def with_facts(cell: Row, tables: Mapping[str, Any]) -> Row:
    """Return the row of ``cells`` with the facts about learning, given the cell's other tables."""
    layers, epochs = (pd.DataFrame(tables[name]) for name in ("layers", "epochs"))
    derived = facts(pd.DataFrame([cell]), layers, epochs, tables["predictions"].to_pandas())
    return cell | records(derived)[0]


def failure_row(job: Job, key: str, reason: str, traceback: str, when: datetime) -> Row:
    """Return the row of table ``failures``: the reason and the traceback."""
    return {
        **coordinates(job, key),
        "failed_at": when,
        "reason": reason,
        "traceback": traceback,
    }


def _sums(rows: list[Row]) -> Row:
    """Add up the counts."""
    return {name: sum(row[name] for row in rows) for name in COUNTS}
