"""Compare GAC's encoder with its repeated form, which computes everything at every step.

    GOMP_SPINCOUNT=3000 python tests/benchmarks/bench_encoder.py [--short] [--json encoder.json]
    python tests/benchmarks/bench_encoder.py --device cuda

The repeated form has the order of operations of the official code, with the same weights and
neurons: stem and spatial attention on T copies of the images folded into the batch, temporal
attention on T poolings. Both forms run in turn in one process on the same images, and their codes
are compared before any measurement. The ratio is the median over rounds of (repeated) / (reused) in
the same round. On CUDA the batches are larger, and the device is idle before and after every
measurement.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, median_ms, parser, ratios, shown, write_json
from torch import Tensor

from codingbench.backbone import build_network
from codingbench.encoder import Task
from codingbench.neurons import over_time, use_backend
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.devices import keep_freed_memory, resolve_device

# the backbone that gives the stem, T, images per batch
CASES = [
    (backbone, num_steps, batch)
    for backbone, batch in (("csnn", 100), ("ms_resnet18", 16))
    for num_steps in (2, 4, 6, 8)
]
CUDA_CASES = [("csnn", 6, 256), ("ms_resnet18", 6, 128)]
SHORT = [("csnn", 2, 4)]
KINDS = ("forward", "forward + backward")
BACKENDS = ("eager", "compiled")
CPU = torch.device("cpu")


def reused(encoder: Any, images: Tensor) -> Tensor:
    """Run the shipped encoder, which computes the same only once for all steps."""
    code: Tensor = encoder(images, torch.Generator(images.device))
    return code


def repeated(encoder: Any, images: Tensor) -> Tensor:
    """Run the stem, both attentions and their poolings at every step."""
    num_steps = encoder.num_steps
    standard = (images - encoder.mean) / encoder.std
    y = over_time(encoder.stem, standard.expand(num_steps, *standard.shape))
    pooled = torch.stack([y.mean((2, 3, 4)), y.amax((2, 3, 4))], dim=2)  # (time, batch, mean|max)
    temporal = encoder.temporal(pooled.movedim(0, 2)).sum(1).T[:, :, None, None, None]
    gate = torch.sigmoid(temporal * over_time(encoder.spatial, y))
    code: Tensor = encoder._checked(encoder.neuron(y) * gate, y.shape[1:])
    return code


FORMS = {"repeated": repeated, "reused": reused}


def run(kind: str, backend: str, form: str, encoder: Any, images: Tensor, grad: Tensor) -> None:
    """Run one evaluation of the encoder, or one training step without the optimiser."""
    is_training = kind != "forward"
    encoder.train(is_training)
    encoder.zero_grad(set_to_none=True)
    with use_backend(backend), torch.set_grad_enabled(is_training):
        code = FORMS[form](encoder, images)
        if is_training:
            code.backward(grad)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def measure(
    case: tuple[str, int, int],
    rounds: int,
    device: torch.device = CPU,
    backends: Sequence[str] = BACKENDS,
) -> dict[str, Any]:
    """Return the times of one case in seconds per round, and the ratios of both forms."""
    backbone, num_steps, batch = case
    task = Task(num_steps, 100, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    plugins = ENCODERS.resolve("gac"), BACKBONES.resolve(backbone)
    encoder = build_network(*plugins, task, seed=0).encoder.to(device)
    draws = torch.Generator().manual_seed(1)
    images = torch.rand(batch, 3, 32, 32, generator=draws).to(device)
    code = reused(encoder, images)
    torch.testing.assert_close(code, repeated(encoder, images), rtol=1e-3, atol=1e-3)
    grad = torch.randn(code.shape, generator=draws).to(device)
    result: dict[str, Any] = {"case": f"{backbone}, T={num_steps}", "batch": batch}
    for kind in KINDS:
        for backend in backends:
            ways = {
                form: partial(run, kind, backend, form, encoder, images, grad) for form in FORMS
            }
            wall_s = alternate(ways, rounds)
            faster = ratios(wall_s["repeated"], wall_s["reused"])
            result[f"{kind}, {backend}"] = {"wall_s": wall_s, **faster}
    return result | {"rounds": rounds}


def show(results: list[dict[str, Any]]) -> Iterator[Table]:
    """Yield a table per kind of run with a row per case and columns for both backends."""
    for kind in KINDS:
        table = Table(title=f"{kind}: repeated form / reuse (median, smallest-largest)")
        table.add_column("stem of")
        for heading in ("images", *(f"{b}: {c}" for b in BACKENDS for c in ("ms", "faster"))):
            table.add_column(heading, justify="right")
        for result in results:
            cells = []
            for backend in BACKENDS:
                found = result[f"{kind}, {backend}"]
                before, after = (median_ms(found["wall_s"][form]) for form in FORMS)
                cells += [f"{before:.0f} / {after:.0f}", shown(found)]
            table.add_row(result["case"], str(result["batch"]), *cells)
        yield table


def main() -> None:
    """Run the cases, print the tables, write the JSON."""
    known = parser(__doc__, "one small case, two rounds")
    known.add_argument("--device", default="cpu")
    options = known.parse_args()
    device = resolve_device(options.device)
    keep_freed_memory()
    full = CASES if device.type == "cpu" else CUDA_CASES
    cases, rounds = (SHORT, 2) if options.short else (full, options.rounds)
    results = [measure(case, rounds, device) for case in cases]
    console = Console(width=110)
    for table in show(results):
        console.print(table)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
