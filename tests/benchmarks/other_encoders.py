"""Examine the encoders of snntorch, SpikingJelly and Norse, and print a table in Markdown.

    python tests/benchmarks/other_encoders.py

Every encoder runs as it is (``codingbench/plugins/adapter.py``) through the checks of ``codingbench
check`` and through the measurements below, at T = 4. Norse is examined where it is installed.

Columns:

- failed: the checks that it fails, or why it cannot be called.
- patterns: different sequences over time among the pixels of 64 photographs, of 2^T.
- first spike: the number of grey levels 0, 1/255, ..., 1 whose first spike is at each step, and of
  those without a spike; for random codes of one draw.
- 0 and 1: mean of what a black and a white pixel emit, over all steps.
- standardised: share of the values of standardised photographs that never spike, and of those that
  spike at every step; of photographs in [0, 1] in brackets.
- draws: whether it reads the global random generator, a generator that it is given, or none.
"""

import argparse
import contextlib
import io
import warnings
from importlib import metadata
from typing import Any

import torch
from torch import Generator, Tensor

from codingbench.backbone import build_network
from codingbench.conformance.examination import examine, plugin_under_test
from codingbench.conformance.images import Scene, photos
from codingbench.errors import SpecError, one_line
from codingbench.registry import BACKBONES, ENCODERS

STEPS = 4
ENCODERS_OF_OTHERS = (
    "snntorch:rate",
    "snntorch:latency",
    "snntorch:latency[normalize=true]",
    "snntorch:latency[normalize=true,linear=true]",
    "snntorch:delta[gets=sequence]",
    "spikingjelly:PoissonEncoder",
    "spikingjelly:LatencyEncoder",
    "spikingjelly:LatencyEncoder[enc_function=log]",
    "spikingjelly:WeightedPhaseEncoder[K=4]",
    "spikingjelly:PopEncoder",
    "norse:poisson_encode",
    "norse:poisson_encode[f_max=1000]",
    "norse:signed_poisson_encode[f_max=1000]",
    "norse:spike_latency_lif_encode",
    "norse:constant_current_lif_encode",
    "norse:population_encode[out_features=2]",
)
COLUMNS = ("encoder", "failed", "patterns", "first spike", "0", "1", "standardised", "draws")


def row(text: str) -> list[str]:
    """Return the cells of one encoder."""
    try:
        tested = plugin_under_test(text)
        network = build_network(
            ENCODERS.resolve(text), BACKBONES.resolve("csnn[width=2]"), Scene().task(), seed=0
        )
    except (ValueError, SpecError) as error:
        reason = one_line(error).partition("ValueError: ")[2]
        return [f"`{text}`", f"refused: {reason}", *["—"] * (len(COLUMNS) - 2)]
    failed = [finding.check.name for finding in examine(tested).of("failed")]
    encoder: Any = network.encoder
    return [
        f"`{text}`",
        ", ".join(failed) or "none",
        measured(lambda: f"{len(patterns(encoder, photos()[:64]))} of {2**STEPS}"),
        *levels(encoder),
        measured(lambda: standardised(encoder)),
        draws(encoder),
    ]


def measured(measure: Any) -> str:
    """Return what a measurement gives, or that the encoder refuses these images."""
    try:
        return str(measure())
    except ValueError as error:
        return f"refuses: {one_line(error).partition('called: ')[2]}"


def encode(encoder: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        spk: Tensor = encoder.spikes(images, Generator().manual_seed(0))
    return spk


def patterns(encoder: Any, images: Tensor) -> Tensor:
    """Return the different sequences of spikes and silence over time."""
    is_spike = (encode(encoder, images) != 0).flatten(1)
    found: Tensor = is_spike.T.int().unique(dim=0)
    return found


def levels(encoder: Any) -> list[str]:
    """Return the levels by step of their first spike, and what black and white pixels emit."""
    ramp = (torch.arange(256) / 255).reshape(1, 1, 16, 16)
    try:
        code = encode(encoder, ramp)
    except ValueError as error:
        reason = f"refuses: {one_line(error).partition('called: ')[2]}"
        return [reason, "—", "—"]
    spk = code.flatten(1) != 0
    first = [int((spk[t] & ~spk[:t].any(0)).sum()) for t in range(STEPS)]
    silent = int((~spk.any(0)).sum())
    ends = [f"{float(code.flatten(1)[:, at].mean()):.2g}" for at in (0, -1)]
    return [f"{'/'.join(map(str, first))}, none {silent}", *ends]


def standardised(encoder: Any) -> str:
    """Return the shares of values that are silent and that always spike."""
    images = photos()[:64]
    plain, moved = (
        (encode(encoder, x) != 0).float().mean(0).flatten()
        for x in (images, (images - images.mean()) / images.std())
    )
    shares = [
        f"{100 * float((rate == at).float().mean()):.0f}"
        for rate in (moved, plain)
        for at in (0, 1)
    ]
    return f"{shares[0]} / {shares[1]} % ({shares[2]} / {shares[3]} %)"


def draws(encoder: Any) -> str:
    """Return which random generator the callable reads, called without the adapter's seeding."""
    if encoder.is_deterministic:
        return "none"
    return "given" if encoder.takes_generator else "global"


def main() -> None:
    """Print the versions and the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    versions = []
    for library in ("snntorch", "spikingjelly", "norse"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{library} {metadata.version(library)}")
    print(f"{', '.join(versions)}; torch {torch.__version__.partition('+')[0]}; T = {STEPS}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    installed = {version.partition(" ")[0] for version in versions}
    for text in ENCODERS_OF_OTHERS:
        if text.partition(":")[0] in installed:
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                print(f"| {' | '.join(row(text))} |", flush=True)


if __name__ == "__main__":
    main()
