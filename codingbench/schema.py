"""The columns of all result tables.

Each table is a folder of Parquet parts (:mod:`codingbench.store.folder`) and is read whole by
``pandas.read_parquet("results/steps")``. Parts of older schemas are converted to these columns when
they are read (:mod:`codingbench.store.migration`). All counts are exact totals over the test images
of the row (``images``); divide by ``images`` for a value per image.

The value class of a layer's input is determined from its actual values, per batch and step:
``binary`` {0, 1}, ``signed`` {-1, 0, 1}, ``level`` (integer multiples of 1/n: sums or averages of
spikes) or ``real`` (currents, gated spikes). *Effective* operations are the non-zero inputs times
their fan-out, without zero padding and biases. *Dense* operations are the output values times the
fan-in, as papers count FLOPs.
"""

from typing import Final

import pyarrow as pa

SCHEMA: Final = 6
"""Version of the columns below, written into every part. Version 3 is that of codingbench 0.3.0.
Parts without a version have schema 2, that of codingbench 0.2.0."""

VALUE_CLASSES: Final = ("binary", "signed", "level", "real")
"""Sorted by cost, cheapest first. A layer has the most expensive class seen at a step."""

SYNAPTIC_COUNTS: Final = tuple(
    f"{how}_{value_class}" for how in ("effective", "dense") for value_class in VALUE_CLASSES
)
"""Synaptic operations: effective_binary ... dense_real."""

ELEMENT_COUNTS: Final[dict[str, str]] = {
    "bias_adds": "output values to which a synaptic layer or a separate operation adds a bias",
    "norm_macs": "values that normalisation layers scale and shift; 0 where BN is folded",
    "pool_ops": "additions or comparisons of pooling, means, sums, maxima: values read - written",
    "residual_adds": "values of element-wise sums of two activations",
    "gate_muls": "values of element-wise products of activations, or with a learned scale",
    "neuron_updates": "membrane updates: neurons x steps run",
}
"""Operations outside synapses -> what is counted. The arithmetic inside a spiking neuron counts as
its update; arithmetic with constants, such as standardising the input, is not counted."""

CONVENTION_COUNTS: Final[dict[str, str]] = {
    "zero_weight_acs": "operations in effective_binary and effective_signed whose weight is 0",
    "zero_weight_macs": "operations in effective_level and effective_real whose weight is 0",
    "paper_first_macs": "dense operations of the first synaptic layer if its input is real, once",
    "paper_acs": "firing rate x dense operations, summed over the layers whose input is not real",
    "syops_acs": "firing rate x (dense operations + bias or values pooled) if the input is binary",
    "syops_macs": "dense operations + bias or values pooled if not; twice the values normalised",
    "lemaire_acs": "additions for operations, biases and addresses; one for each spike emitted",
    "lemaire_macs": "dense operations if the input is not binary; addresses; membrane leaks",
    "lemaire_memory_pj": "picojoules of reading and writing buffers, whose price grows with size",
}
"""Counts that only some energy conventions need -> what is counted. They cannot be derived from the
counts above, because they are products per layer and batch."""

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
"""Kinds of rows in ``layers`` -> meaning. A module that does several kinds of work has one row for
each."""

COUNTS: Final = (*SYNAPTIC_COUNTS, *ELEMENT_COUNTS, *CONVENTION_COUNTS)
"""Columns with counts in ``layers``; ``steps`` and ``cells`` hold their sums."""

_text, _int, _float = pa.string(), pa.int64(), pa.float64()
_time = pa.timestamp("us", tz="UTC")

COORDINATES: Final = {
    "key": _text,  # hash of everything that determines the numbers of the cell
    "dataset": _text,
    "encoder": _text,  # canonical: name[param=value,...] without parameters at their default
    "backbone": _text,
    "neuron": _text,  # of the backbone; "default" if it is the backbone's own
    "num_steps": _int,  # T
    "recipe": _text,
    "epochs": _int,
    "batch_size": _int,
    "micro_batch": _int,  # images processed at once; batch_size if a batch is not split
    "train_samples": _int,  # training images used, including the validation images
    "test_samples": _int,
    "precision": _text,  # fp32 | bf16
    "seed": _int,
}
"""The coordinates of a cell in the grid; first columns of every table except ``predictions``."""

_counts = dict.fromkeys(COUNTS, _int) | dict.fromkeys(
    ("paper_acs", "syops_acs", "lemaire_memory_pj"), _float
)

TABLES: Final[dict[str, "pa.Schema"]] = {
    "cells": pa.schema(
        COORDINATES
        | {
            "accuracy": _float,  # test accuracy after the last epoch, in [0, 1]
            "val_accuracy": _float,  # validation accuracy after the last epoch
            "selected_epoch": _int,  # the epoch (1-based) of the best validation accuracy
            "selected_accuracy": _float,  # test accuracy with the weights of that epoch
            "evaluated_weights": _text,  # last | mean: the exponential mean over training steps
            "num_classes": _int,
            "val_samples": _int,
            "parameters": _int,
            "encoder_parameters": _int,  # those of the encoder, without the stem
            "code_channels": _int,  # of the code per channel of the image; above 1: a larger stem
            "images": _int,
            # Of the backbone's neurons; parts before schema 6 include the encoder's
            "firing_rate": _float,  # spikes / (neurons x num_steps x images)
            "spikes": _int,
            "neurons": _int,  # per image
            "encoder_spikes": _int,  # of the encoder's own neurons; null before schema 6
            "encoder_neurons": _int,  # per image; null before schema 6
        }
        | _counts
        | {
            "uncounted": _text,  # names of modules whose work could not be counted, comma-separated
            # What shows whether the cell learned (codingbench.store.learning); null if unknown
            "silent_layers": _text,  # layers without a spike on the test images, comma-separated
            "largest_class_share": _float,  # of the test images, in [0, 1]
            "loss_drop": _float,  # by how much training lowered the loss
            "wall_s": _float,  # the training in all its sessions, and the session that measured
            "train_wall_s": _float,  # the training in all its sessions
            "images_per_s": _float,  # training images per second, over all epochs
            "peak_memory_mb": _float,  # of the process with the most; on CUDA, its GPU memory
            "device": _text,  # the first of the devices
            "devices": _int,  # number of devices that trained the cell together
            "device_name": _text,
            "host": _text,  # hash of the machine's name; null if --no-host
            "threads": _int,  # CPU threads; null if unknown
            "neuron_backend": _text,  # eager | compiled | fused
            "deterministic": pa.bool_(),  # only deterministic kernels were used; null if unknown
            "started_at": _time,
            "finished_at": _time,
            "codingbench_version": _text,
            "python_version": _text,
            "torch_version": _text,
            "snntorch_version": _text,
            "cuda_version": _text,  # null on a CPU
            "cudnn_version": _text,  # null on a CPU
            "git_commit": _text,  # commit of the installed checkout; null for a wheel
            "git_dirty": pa.bool_(),
            "config_hash": _text,  # hash of the whole request; null if unknown
            "recipe_hash": _text,
            "encoder_code": _text,  # hash of the plug-in's code
            "backbone_code": _text,
            "neuron_code": _text,  # null if the neuron is the backbone's own
            "dataset_fingerprint": _text,
        }
    ),
    "steps": pa.schema(
        COORDINATES
        | {
            "step": _int,  # t, 1-based: the prediction is the mean of the first t logits
            "is_prefix": pa.bool_(),  # t < T: first t steps of a T-step model
            "accuracy": _float,
            "images": _int,
            "firing_rate": _float,  # of the backbone's neurons, at this step; see cells
            "spikes": _int,  # at this step
            "neurons": _int,
            "encoder_spikes": _int,  # at this step
            "encoder_neurons": _int,
            "code_nonzero": _int,  # non-zero values that the encoder emitted at this step
            "code_values": _int,
        }
        | _counts  # at this step; work done once for all steps is counted at step 1
        | {
            # energy per image when classified after this step: all steps up to this one
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
            "executions": _int,  # runs at this step, summed over images
            "input_class": _text,  # most expensive value class seen; null for all but synapses
            "input_values": _int,
            "input_nonzero": _int,
            "input_rate": _float,  # mean |value|; for real input the share of non-zero values
        }
        | _counts
        | {
            "spikes": _int,  # spikes of a neuron layer; non-zero values of the code
            "neurons": _int,  # neurons per image; for the code, values per image and step
            "firing_rate": _float,  # spikes / (neurons x images)
        }
    ),
    "epochs": pa.schema(
        COORDINATES
        | {
            "epoch": _int,  # 1-based
            "learning_rate": _float,  # at the end of the epoch
            "train_loss": _float,  # mean of the recipe's loss, which training minimises
            "train_accuracy": _float,  # on the augmented images, during training
            "val_loss": _float,  # cross-entropy of the mean logits, whatever the recipe's loss
            "val_accuracy": _float,
            "test_accuracy": _float,  # only with --test-each-epoch; selects and ranks nothing
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
    "robustness": pa.schema(  # one row per cell and condition; weights of the last epoch
        COORDINATES
        | {
            "attack": _text,  # one of codingbench.robustness.attacks.ATTACKS
            "strength": _float,  # sigma or largest change of a pixel in [0, 1], or a probability
            "images": _int,  # number of test images used, the first ones of the cell
            "accuracy": _float,
            "weaker_than": _text,  # control attacks that were stronger: signs of a masked gradient
            "gradient": _text,  # through the coding: own | straight-through; null without gradient
            "draws": _int,  # random codes that a gradient is averaged over; null without gradient
            "steps": _int,  # iterations of an attack; jitter: largest shift in steps; else null
            "step_size": _float,  # change of a pixel (in [0, 1]) per iteration; null without
            "source": _text,  # transfer: key of the cell on which the images were made
            "perturbation_seed": _int,
            "measured_at": _time,
            "device": _text,
            "device_name": _text,
            "threads": _int,  # CPU threads
            "codingbench_version": _text,
            "torch_version": _text,
            "snntorch_version": _text,
        }
    ),
}

LATER_TABLES: Final = ("robustness",)
"""Tables to which rows may be added after a cell has finished."""

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
"""Columns that say how, where, when and how fast a cell was run. Two runs of a cell have the same
result if all other columns are equal."""
