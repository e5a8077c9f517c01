"""The columns of the result tables, in one place.

Each table is a folder of Parquet parts (:mod:`codingbench.store.folder`) and is read whole by
``pandas.read_parquet("results/steps")``. Parts of older schemas are read as if they had these
columns (:mod:`codingbench.store.migration`). All counts are totals over the test
images of the row (``images``) and exact; divide by ``images`` for a figure per image.

Value classes of a layer's input, decided from its actual values per batch and step:
``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` (integer multiples of 1/n: sums or averages of
spikes), ``real`` (currents, gated spikes). *Effective* operations are the non-zero inputs times
their real fan-out (zero padding and bias not counted); *dense* ones are output values times
fan-in, as papers count FLOPs.
"""

from typing import Final

import pyarrow as pa

SCHEMA: Final = 4
"""Version of the columns below, written into every part. 3 is that of codingbench 0.3.0; parts
without a version are of schema 2, those of codingbench 0.2.0."""

VALUE_CLASSES: Final = ("binary", "signed", "level", "real")
"""From the cheapest to the dearest; a layer's class at a step is the dearest one seen."""

SYNAPTIC_COUNTS: Final = tuple(
    f"{how}_{value_class}" for how in ("effective", "dense") for value_class in VALUE_CLASSES
)
"""Synaptic operations: effective_binary ... dense_real."""

ELEMENT_COUNTS: Final[dict[str, str]] = {
    "bias_adds": "output values to which a synaptic layer or an operation of its own adds a bias",
    "norm_macs": "values that normalisation layers scale and shift; none where BN is folded",
    "pool_ops": "additions or comparisons of pooling, means, sums and maxima: values read - out",
    "residual_adds": "values of element-wise sums of two activations",
    "gate_muls": "values of element-wise products of activations, or with a learned scale",
    "neuron_updates": "membrane updates: neurons x steps run",
}
"""Operations outside of synapses -> what they count; a spiking neuron's own arithmetic is its
update, and arithmetic with constants (input standardisation) is not counted."""

CONVENTION_COUNTS: Final[dict[str, str]] = {
    "zero_weight_acs": "of effective_binary and effective_signed, those whose weight is 0",
    "zero_weight_macs": "of effective_level and effective_real, those whose weight is 0",
    "paper_first_macs": "dense operations of the first synaptic layer if its input is real, once",
    "paper_acs": "firing rate x dense operations of every layer whose input is not real",
    "syops_acs": "firing rate x (dense operations + bias or values pooled) if the input is binary",
    "syops_macs": "dense operations + bias or values pooled if not; twice the values normalised",
}
"""What a convention needs beyond the counts above, because it is a product per layer and batch."""

KINDS: Final[dict[str, str]] = {
    "synapse": "a weight matrix or kernel, or a product of two activations",
    "neuron": "a spiking neuron",
    "code": "what the encoder emits",
    "norm": "normalisation",
    "pool": "pooling, mean, sum, maximum",
    "residual": "element-wise sum of activations",
    "gate": "element-wise product",
    "bias": "element-wise sum with a parameter",
}
"""Kinds of rows of ``layers``; a module that does several kinds of work has a row for each."""

COUNTS: Final = (*SYNAPTIC_COUNTS, *ELEMENT_COUNTS, *CONVENTION_COUNTS)
"""All that is counted: columns of ``layers``, summed in ``steps`` and ``cells``."""

_text, _int, _float = pa.string(), pa.int64(), pa.float64()
_time = pa.timestamp("us", tz="UTC")

COORDINATES: Final = {
    "key": _text,  # hash of all that decides the numbers of the cell
    "dataset": _text,
    "encoder": _text,  # canonical: name[param=value,...], parameters at their default left out
    "backbone": _text,
    "num_steps": _int,  # T
    "recipe": _text,
    "epochs": _int,
    "batch_size": _int,
    "micro_batch": _int,  # images of a batch that are in memory at once; batch_size: all
    "train_samples": _int,  # training images used, the validation images among them
    "test_samples": _int,
    "precision": _text,  # fp32 | bf16
    "seed": _int,
}
"""What names a cell to a person; the first columns of every table but ``predictions``."""

_counts = dict.fromkeys(COUNTS, _int) | {"paper_acs": _float, "syops_acs": _float}

TABLES: Final[dict[str, "pa.Schema"]] = {
    "cells": pa.schema(
        COORDINATES
        | {
            "accuracy": _float,  # test accuracy after the last epoch, in [0, 1]
            "val_accuracy": _float,  # validation accuracy after the last epoch
            "selected_epoch": _int,  # the epoch (1-based) of the best validation accuracy
            "selected_accuracy": _float,  # test accuracy of the weights of that epoch
            "num_classes": _int,
            "val_samples": _int,
            "parameters": _int,
            "encoder_parameters": _int,  # of the encoder without the stem
            "images": _int,
            "firing_rate": _float,  # spikes / (neurons x num_steps x images)
            "spikes": _int,
            "neurons": _int,  # per image
        }
        | _counts
        | {
            "uncounted": _text,  # names of layers that the counter does not know, comma-separated
            "wall_s": _float,
            "train_wall_s": _float,
            "images_per_s": _float,  # training images per second, over all epochs
            "peak_memory_mb": _float,  # of the process that took most; on CUDA of its GPU
            "device": _text,  # the first of them
            "devices": _int,  # that trained it together
            "device_name": _text,
            "host": _text,  # hash of the machine's name; null if it is not to be told
            "threads": _int,  # of the CPU; null if not known
            "neuron_backend": _text,  # eager | compiled | fused
            "deterministic": pa.bool_(),  # only deterministic kernels; null if not known
            "started_at": _time,
            "finished_at": _time,
            "codingbench_version": _text,
            "python_version": _text,
            "torch_version": _text,
            "snntorch_version": _text,
            "cuda_version": _text,  # null on a CPU
            "cudnn_version": _text,  # null on a CPU
            "git_commit": _text,  # of the installed checkout; null for a wheel
            "git_dirty": pa.bool_(),
            "config_hash": _text,  # of the request that the cell was part of; null if not known
            "recipe_hash": _text,
            "encoder_code": _text,  # hash of the plug-in's file
            "backbone_code": _text,
            "dataset_fingerprint": _text,
        }
    ),
    "steps": pa.schema(
        COORDINATES
        | {
            "step": _int,  # t, 1-based: the prediction is the mean of the first t logits
            "is_prefix": pa.bool_(),  # t < T: a prefix of a T-step model, not one trained at t
            "accuracy": _float,
            "images": _int,
            "firing_rate": _float,  # at this step
            "spikes": _int,  # at this step
            "neurons": _int,
            "code_nonzero": _int,  # non-zero values that the encoder emitted at this step
            "code_values": _int,
        }
        | _counts  # at this step; what runs once for all steps stands at step 1
        | {
            # of one image classified after this step, all steps up to it included
            "energy_exact_uj": _float,
            "energy_paper_uj": _float,
        }
    ),
    "layers": pa.schema(
        COORDINATES
        | {
            "layer": _text,  # qualified name, "encoder..." or "backbone..."
            "position": _int,  # order of first execution
            "kind": _text,  # one of KINDS
            "step": _int,
            "images": _int,
            "executions": _int,  # times run at this step, summed over images
            "input_class": _text,  # dearest class seen; null but for synapses
            "input_values": _int,
            "input_nonzero": _int,
            "input_rate": _float,  # firing rate: mean |value|; of real input the non-zero share
        }
        | _counts
        | {
            "spikes": _int,  # of neurons; non-zero values of the code
            "neurons": _int,  # per image; values per image and step of the code
            "firing_rate": _float,  # spikes / (neurons x images)
        }
    ),
    "epochs": pa.schema(
        COORDINATES
        | {
            "epoch": _int,  # 1-based
            "learning_rate": _float,  # at the end of the epoch
            "train_loss": _float,
            "train_accuracy": _float,  # of the augmented images, while training
            "val_loss": _float,
            "val_accuracy": _float,
            "images_per_s": _float,
            "wall_s": _float,
        }
    ),
    "predictions": pa.schema(
        {
            "key": _text,
            "image": pa.int32(),  # index into the test images of the cell
            "label": pa.int16(),
            "prediction": pa.int16(),
            "margin": pa.float32(),  # largest minus second largest mean logit
        }
    ),
    "failures": pa.schema(
        COORDINATES
        | {
            "failed_at": _time,
            "reason": _text,  # one line
            "traceback": _text,
        }
    ),
    "robustness": pa.schema(  # one row per cell and condition, of the weights after the last epoch
        COORDINATES
        | {
            "attack": _text,  # one of codingbench.robustness.conditions.ATTACKS
            "strength": _float,  # sigma or largest change of a pixel in [0, 1], or a probability
            "images": _int,  # the first so many test images of the cell
            "accuracy": _float,
            "weaker_than": _text,  # white-box attacks: controls that say its gradient is masked
            "gradient": _text,  # own | straight-through: through the coding; null without
            "draws": _int,  # codes that a gradient is the mean over; null without
            "steps": _int,  # of an iterated attack; jitter: how far in time at most; else null
            "step_size": _float,  # of a pixel in [0, 1]; null without
            "source": _text,  # transfer: key of the cell that the images were made on
            "perturbation_seed": _int,
            "measured_at": _time,
            "device": _text,
            "device_name": _text,
            "threads": _int,  # of the CPU
            "codingbench_version": _text,
            "torch_version": _text,
            "snntorch_version": _text,
        }
    ),
}

LATER_TABLES: Final = ("robustness",)
"""Tables that a finished cell may get rows of afterwards, measured anew, or never."""

PROVENANCE: Final = frozenset(
    {
        "wall_s",
        "train_wall_s",
        "images_per_s",
        "peak_memory_mb",
        "device",
        "devices",
        "device_name",
        "host",
        "threads",
        "neuron_backend",
        "deterministic",
        "started_at",
        "finished_at",
        "codingbench_version",
        "python_version",
        "torch_version",
        "snntorch_version",
        "cuda_version",
        "cudnn_version",
        "git_commit",
        "git_dirty",
        "config_hash",
    }
)
"""Columns that say how, where, when and how fast a cell was run. Two runs of a cell whose other
columns are the same have the same result."""
