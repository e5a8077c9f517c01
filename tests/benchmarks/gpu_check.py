"""Check the fused kernels on a real device and time a training step; two minutes on an H200.

    python tests/benchmarks/gpu_check.py --out DIR [--minutes 3]
    TRITON_INTERPRET=1 python tests/benchmarks/gpu_check.py --out DIR --device cpu --tiny

Parts run in order of importance; an error in one is printed and the next goes on. Everything is in
DIR/gpu_check.json and DIR/gpu_check.log after each measurement, so that a time limit loses nothing.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("CODINGBENCH_DEBUG", "1")  # errors of kernels are raised, not survived

import snntorch.surrogate as surrogate
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Backbone, Network, build_network, move_network
from codingbench.encoder import Task
from codingbench.neurons import (
    MultiStepLeaky,
    fused,
    layout,
    over_time,
    rectangle,
    triangle,
    use_backend,
)
from codingbench.neurons.layout import to_channels_last
from codingbench.registry import BACKBONES, ENCODERS

Neuron = Callable[[], nn.Module]


class Report:
    """What was found so far, on disk after every entry."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.log = folder / "gpu_check.json", (folder / "gpu_check.log").open("w")
        self.found: dict[str, Any] = {}
        self.started = time.perf_counter()

    def say(self, text: str) -> None:
        line = f"[{time.perf_counter() - self.started:6.1f} s] {text}"
        print(line, flush=True)
        print(line, file=self.log, flush=True)

    def add(self, part: str, name: str, value: Any, text: str = "") -> None:
        self.found.setdefault(part, {})[name] = value
        self.path.write_text(json.dumps(self.found, indent=1, default=str) + "\n")
        self.say(f"{part:8s} {name:44s} {text or value}")


class Context:
    """Device, sizes, report and time limit of one run of the script."""

    def __init__(self, device: torch.device, is_tiny: bool, report: Report, limit_s: float) -> None:
        self.device, self.is_tiny, self.report, self.limit_s = device, is_tiny, report, limit_s

    @property
    def is_late(self) -> bool:
        return time.perf_counter() - self.report.started > self.limit_s

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def attempt(self, part: str, name: str) -> Iterator[None]:
        """Inside, an error is reported and survived."""
        try:
            yield
        except Exception as error:
            self.report.say(traceback.format_exc())
            self.report.add(part, name, f"FAILED {type(error).__name__}: {error}"[:300])
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


# --- kernels against the eager layers -------------------------------------------------------------

SURROGATES: dict[str, Any] = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": surrogate.atan(1.5),
    "fast_sigmoid": surrogate.fast_sigmoid(10),
    "SFS": surrogate.SFS(5, -0.5),
    "spike_rate_escape": surrogate.spike_rate_escape(2, 0.7),
    "heaviside": surrogate.heaviside(),
    "straight_through_estimator": surrogate.straight_through_estimator(),
}
RESETS = [("zero", False), ("zero", True), ("subtract", False), ("subtract", True), ("none", True)]


def check_kernel(run: Context, shape: tuple[int, ...], reset: tuple[str, bool], name: str,
                 has_residual: bool, dtype: torch.dtype) -> None:  # fmt: skip
    """All results of ``norm_fire`` against torch's normalisation and the eager neuron."""
    neuron = MultiStepLeaky(
        0.5, 0.7, SURROGATES[name], reset_mechanism=reset[0], reset_delay=reset[1]
    )
    draws = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(shape[2], momentum=0.3).to(run.device)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(shape[2], generator=draws) + 0.5)
        norm.bias.copy_(torch.rand(shape[2], generator=draws) - 0.3)
    made = [torch.randn(shape, generator=draws).to(run.device) for _ in range(4)]
    y, residual, *weights = (to_channels_last(x.to(dtype)) for x in made)
    y = y * 3 + 1

    def results(is_fused: bool) -> dict[str, Tensor]:
        layer, given = copy.deepcopy(norm), y.detach().clone().requires_grad_()
        added = residual.detach().clone().requires_grad_() if has_residual else None
        if is_fused:
            lif = neuron.lif()
            assert lif is not None
            found = fused.norm_fire(given, layer, lif, added)
            assert found is not None
            spk, cur = found
        else:
            cur = over_time(layer, given)
            cur = cur if added is None else cur + added
            with use_backend("eager"):
                spk = neuron(cur.float()).to(dtype)
        loss = (spk * weights[0]).float().sum()
        if has_residual:
            assert cur is not None
            loss = loss + (cur * weights[1]).float().sum()
        loss.backward()
        out = {"spk": spk, "by y": given.grad, "by weight": layer.weight.grad}
        out |= {"by bias": layer.bias.grad, "mean": layer.running_mean, "var": layer.running_var}
        if added is not None:
            out |= {"cur": cur, "by residual": added.grad}
        assert layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 1
        return {key: value.detach().float() for key, value in out.items() if value is not None}

    found, again, expected = results(True), results(True), results(False)
    assert all(torch.equal(found[key], again[key]) for key in found), "two runs differ"
    limit = 1e-4 if dtype == torch.float32 else 2**-6
    facts, is_good = {}, True
    for key, value in expected.items():
        scale = value.abs().max().clamp(min=1e-9)
        apart = (found[key] - value).abs() / scale
        share = (apart > limit).float().mean().item()
        facts[key] = {"max": apart.max().item(), "share": share}
        # a membrane that rounds over the threshold is another spike, and changes sums a little
        is_sum = key in ("by weight", "by bias")
        is_good &= share <= (2e-3 if dtype == torch.float32 else 1e-2) or (
            is_sum and apart.max().item() < 20 * limit
        )
    worst = ", ".join(f"{k} {v['max']:.0e}/{v['share']:.0e}" for k, v in facts.items())
    delay = "-delayed" if reset[1] else ""
    label = f"{reset[0]}{delay} {name} {shape} {'+r ' if has_residual else ''}{str(dtype)[6:]}"
    run.report.add("check", label, facts, f"{'ok' if is_good else 'FAILED'} {worst}")


def check_neuron(run: Context, dtype: torch.dtype) -> None:
    """The neuron alone, channels-last and constant over time."""
    draws = torch.Generator().manual_seed(0)
    neuron = MultiStepLeaky(0.5, 1.0)
    steps = torch.randn(4, 3, 20, 7, 7, generator=draws).to(run.device, dtype)
    for kind, cur in (
        ("contiguous", steps),
        ("channels-last", to_channels_last(steps)),
        ("constant", to_channels_last(steps)[0].expand(steps.shape)),
    ):
        found = []
        for name in ("fused", "eager"):
            given = cur.float() if name == "eager" else cur
            given = given.detach().requires_grad_()
            with use_backend(name):
                spk = neuron(given)
            (grad,) = torch.autograd.grad((spk * steps.to(spk.dtype)).sum(), given)
            found.append((spk.float(), grad.float()))
        (spk, grad), (expected, expected_grad) = found
        apart = (grad - expected_grad).abs().max().item()
        is_good = torch.equal(spk, expected) and apart < (1e-5 if dtype == torch.float32 else 0.05)
        text = f"{'ok' if is_good else 'FAILED'} gradient {apart:.0e}"
        run.report.add("check", f"neuron alone, {kind}, {str(dtype)[6:]}", apart, text)


def first_checks(run: Context) -> None:
    """The kernels of the usual networks, odd sizes and real ones."""
    shapes = [(4, 2, 24, 6, 6), (3, 1, 130, 5, 3)]
    if not run.is_tiny:
        shapes.append((4, 64, 128, 32, 32))
    for dtype in (torch.bfloat16, torch.float32):
        for shape in shapes:
            for has_residual in (False, True):
                with run.attempt("check", f"{shape} {has_residual} {dtype}"):
                    check_kernel(run, shape, RESETS[0], "triangle", has_residual, dtype)
        with run.attempt("check", f"neuron alone {dtype}"):
            check_neuron(run, dtype)


def other_checks(run: Context) -> None:
    """Every reset and every surrogate, T = 1 to 12."""
    for index, name in enumerate([*SURROGATES, *SURROGATES][:12]):
        if run.is_late:
            return run.report.say("out of time for the other checks")
        shape = ((1, 2, 3, 5, 7), (2, 1, 17, 4, 3), (8, 2, 40, 4, 4), (12, 1, 24, 3, 3))[index % 4]
        dtype = (torch.float32, torch.bfloat16)[index % 3 == 2]
        with run.attempt("check", f"{RESETS[index % 5]} {name}"):
            check_kernel(run, shape, RESETS[index % 5], name, index % 2 == 0, dtype)
    return None


# --- networks -------------------------------------------------------------------------------------


def build(name: str, num_steps: int, neuron: Neuron, encoder: str = "direct") -> Network:
    task = Task(num_steps, 100, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    with patch.object(Backbone, "make_neuron", lambda self: neuron()):
        return build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(name), task, seed=0)


def lif() -> nn.Module:
    return MultiStepLeaky(0.5, 1.0)


class Step:
    """A training step or an evaluation of one network, eager or as a CUDA graph."""

    def __init__(self, run: Context, case: tuple[str, int, int], neuron: Neuron, *,
                 is_nhwc: bool = True, has_norms: bool = True, graph: bool = False,
                 trains: bool = True, precision: str = "bf16") -> None:  # fmt: skip
        name, num_steps, batch = case
        self.run, self.precision = run, precision
        self.graph: torch.cuda.CUDAGraph | None = None
        self.network = build(name, num_steps, neuron)
        if not has_norms:
            for module in [*self.network.modules()]:
                for key, child in [*module.named_children()]:
                    if isinstance(child, nn.BatchNorm2d):
                        setattr(module, key, nn.Identity())
        if is_nhwc:
            move_network(self.network, run.device)
        else:
            self.network.to(run.device)
        draws = torch.Generator().manual_seed(1)
        self.images = torch.rand(batch, 3, 32, 32, generator=draws).to(run.device)
        self.labels = torch.randint(0, 100, (batch,), generator=draws).to(run.device)
        self.draws = torch.Generator(run.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.01, momentum=0.9, fused=run.device.type == "cuda"
        )
        self.loss = torch.zeros(())
        self.network.train(trains)
        self.trains = trains
        if graph:
            self.capture()

    def capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.eager()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.eager()

    def eager(self) -> None:
        with (
            torch.autocast(
                self.run.device.type,
                torch.bfloat16,
                enabled=self.precision == "bf16",
                cache_enabled=False,
            ),
            torch.set_grad_enabled(self.trains),
        ):
            logits = self.network(self.images, self.draws)
        self.loss = F.cross_entropy(logits.float().mean(0), self.labels)
        if self.trains:
            self.optimizer.zero_grad(set_to_none=True)
            self.loss.backward()
            self.optimizer.step()

    def __call__(self) -> None:
        if self.graph is not None:
            self.graph.replay()
        else:
            self.eager()


def settings(stack: ExitStack, **wanted: Any) -> None:
    """Enter what a way needs: a backend, the layout of a CPU, normalisation by torch."""
    if wanted.get("backend"):
        stack.enter_context(use_backend(wanted["backend"]))
    if not wanted.get("is_nhwc", True):
        changed = patch.object(layout, "keeps_channels_last", lambda device: False)
        stack.enter_context(changed)
    if wanted.get("separate_norms"):
        stack.enter_context(patch.object(fused, "can_normalise", lambda norm: False))


WAYS: dict[str, dict[str, Any]] = {
    "ReLU, channels-last": {"neuron": nn.ReLU},
    "fused": {"neuron": lif},
    "fused, graph": {"neuron": lif, "graph": True},
    "Triton neuron, torch's norm": {"neuron": lif, "separate_norms": True},
    "convolutions alone, graph": {"neuron": nn.Identity, "has_norms": False, "graph": True},
    "ReLU, channels-last, graph": {"neuron": nn.ReLU, "graph": True},
    "eager neuron": {"neuron": lif, "backend": "eager"},
    "eager neuron, NCHW": {"neuron": lif, "backend": "eager", "is_nhwc": False},
    "ReLU, NCHW": {"neuron": nn.ReLU, "is_nhwc": False},
}
STEP = ("neuron", "is_nhwc", "has_norms", "graph")


def time_way(run: Context, case: tuple[str, int, int], name: str, *, trains: bool = True) -> None:
    """Median time of a step over three rounds, and the peak of memory."""
    wanted, is_cuda = WAYS[name], run.device.type == "cuda"
    if wanted.get("graph") and not is_cuda:
        return
    part = "train" if trains else "evaluate"
    label = f"{case[0]} T{case[1]} b{case[2]} | {name}"
    started = time.perf_counter()
    with run.attempt(part, label), ExitStack() as stack:
        settings(stack, **wanted)
        kind = {key: wanted[key] for key in STEP if key in wanted}
        if is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = Step(run, case, trains=trains, **kind)
        for _ in range(2 if run.is_tiny else 5):
            step()
        run.wait()
        setup_s = time.perf_counter() - started
        repeats = 1 if run.is_tiny else (15 if case[2] >= 256 else 40)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            run.wait()
            times.append((time.perf_counter() - start) / repeats * 1e3)
        ms = statistics.median(times)
        peak = torch.cuda.max_memory_allocated() / 2**20 if is_cuda else 0.0
        facts = {"ms": ms, "times": times, "images_per_s": case[2] / ms * 1e3, "peak_mb": peak}
        facts |= {"setup_s": setup_s, "loss": step.loss.item()}
        run.report.add(
            part, label, facts,
            f"{ms:8.2f} ms {case[2] / ms * 1e3:9.0f} images/s {peak:7.0f} MB "
            f"loss {step.loss.item():.3f} (setup {setup_s:.0f} s)",
        )  # fmt: skip


def profile(run: Context, case: tuple[str, int, int], name: str) -> None:
    """The kernels that take most of a training step."""
    with run.attempt("profile", name), ExitStack() as stack:
        wanted = WAYS[name]
        settings(stack, **wanted)
        step = Step(run, case, **{key: wanted[key] for key in STEP if key in wanted})
        for _ in range(1 if run.is_tiny else 4):
            step()
        run.wait()
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if run.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profiler:
            for _ in range(1 if run.is_tiny else 3):
                step()
            run.wait()
        times: dict[str, list[float]] = {}
        for event in profiler.events():
            if run.device.type == "cuda" and "CUDA" not in str(event.device_type):
                continue
            us = event.time_range.elapsed_us()
            times.setdefault(event.name, []).append(us)
        rounds = 1 if run.is_tiny else 3
        rows = sorted(((sum(v) / rounds / 1e3, len(v) // rounds, k) for k, v in times.items()))
        top: list[dict[str, Any]] = [
            {"ms": ms, "calls": calls, "kernel": key} for ms, calls, key in reversed(rows[-25:])
        ]
        total = sum(ms for ms, _, _ in rows)
        run.report.add("profile", name, top, f"kernels of a step: {total:.2f} ms")
        for row in top:
            run.report.say(f"  {row['ms']:8.3f} ms {row['calls']:5d} x {row['kernel'][:110]}")


def same_network(run: Context) -> None:
    """One step in fp32: fused and eager give the same loss, and gradients but for single spikes."""
    with run.attempt("same", "csnn"):
        torch.backends.cudnn.allow_tf32 = False
        found = []
        for backend in ("fused", "eager"):
            step = Step(
                run,
                ("csnn[width=4]", 2, 3) if run.is_tiny else ("csnn", 4, 64),
                lif,
                precision="fp32",
            )
            with use_backend(backend):
                step.eager()
            grads = torch.cat(
                [p.grad.flatten() for p in step.network.parameters() if p.grad is not None]
            )
            found.append((step.loss.item(), grads))
        torch.backends.cudnn.allow_tf32 = True
        (loss, grad), (expected, expected_grad) = found
        apart = ((grad - expected_grad).norm() / expected_grad.norm()).item()
        is_good = abs(loss - expected) < 1e-3 and apart < 1e-2
        text = (
            f"{'ok' if is_good else 'FAILED'} loss {loss:.6f} {expected:.6f}, gradient {apart:.1e}"
        )
        run.report.add("same", "csnn", [loss, expected, apart], text)


def layouts(run: Context) -> None:
    """Layers whose input or output is not channels-last, of a fused network."""
    names = ("csnn[width=4]",) if run.is_tiny else ("csnn", "ms_resnet18", "sew_resnet18", "vgg9")
    for name in names:
        with run.attempt("layout", name):
            step = Step(run, (name, 2, 2), lif)
            wrong: list[str] = []
            for key, module in step.network.named_modules():
                if isinstance(module, nn.Conv2d):

                    def look(m: nn.Module, args: Any, out: Tensor, key: str = key,
                             wrong: list[str] = wrong) -> None:  # fmt: skip
                        for kind, x in (("input", args[0]), ("output", out)):
                            if not x.is_contiguous(memory_format=torch.channels_last):
                                wrong.append(f"{key} {kind}")

                    module.register_forward_hook(look)
            step.eager()
            run.report.add("layout", name, wrong, "ok" if not wrong else f"FAILED {wrong}")


def tiles(run: Context) -> None:
    """Time of one layer's kernels by size of the tile: 128 channels at 32x32, T = 4, batch 256."""
    shape = (2, 2, 16, 4, 4) if run.is_tiny else (4, 256, 128, 32, 32)
    of = fused._Tile.of
    y, residual, grad = (
        to_channels_last(torch.randn(shape, device=run.device, dtype=torch.bfloat16))
        for _ in range(3)
    )
    moved = y.numel() * 2 / 1e9
    norm, neuron = nn.BatchNorm2d(shape[2]).to(run.device), MultiStepLeaky().lif()
    assert neuron is not None
    for forward, backward in ((1024, 1024), (2048, 1024), (1024, 512), (512, 2048)):
        if run.is_late:
            return run.report.say("out of time for tiles")

        def sized(flat: Tensor, is_backward: bool = False,
                  numbers: tuple[int, int] = (forward, backward)) -> Any:  # fmt: skip
            cols = of(flat, is_backward).cols
            return fused._Tile(max(1, numbers[is_backward] // cols), cols)

        for has_residual in (False, True):
            label = f"forward {forward}, backward {backward}{', residual' * has_residual}"
            with run.attempt("tiles", label), patch.object(fused._Tile, "of", sized):
                given = y.detach().requires_grad_()
                added = residual.detach().requires_grad_() if has_residual else None
                times: dict[str, list[float]] = {"forward": [], "backward": []}
                for _ in range(2 if run.is_tiny else 8):
                    run.wait()
                    start = time.perf_counter()
                    found = fused.norm_fire(given, norm, neuron, added)
                    assert found is not None
                    run.wait()
                    middle = time.perf_counter()
                    outs = [out for out in found if out is not None]
                    torch.autograd.backward(outs, [grad] * len(outs))
                    run.wait()
                    times["forward"].append((middle - start) * 1e3)
                    times["backward"].append((time.perf_counter() - middle) * 1e3)
                best = {key: min(value[1:]) for key, value in times.items()}
                maps = {"forward": 5 if has_residual else 3, "backward": 8 if has_residual else 5}
                text = ", ".join(
                    f"{key} {ms:.3f} ms ({maps[key] * moved / ms:.2f} TB/s)"
                    for key, ms in best.items()
                )
                run.report.add("tiles", label, best, text)
    return None


def main() -> None:
    """Run all parts."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--device", default="cuda")
    options.add_argument("--minutes", type=float, default=3.0)
    options.add_argument("--tiny", action="store_true", help="sizes for a trial on a CPU")
    given = options.parse_args()
    warnings.simplefilter("ignore")
    if given.tiny:
        vars(layout)["keeps_channels_last"] = lambda device: True
    report, device = Report(given.out), torch.device(given.device)
    run = Context(device, given.tiny, report, 60 * given.minutes)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    with run.attempt("machine", "triton"):
        import triton

        versions["triton"] = triton.__version__
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    report.add("machine", name, versions)

    first_checks(run)
    same_network(run)
    large = ("csnn[width=4]", 2, 2) if given.tiny else ("ms_resnet18", 4, 256)
    first = ["ReLU, channels-last", "fused", "fused, graph"]
    for way in first:
        time_way(run, large, way)
    profile(run, large, "fused")
    for case in [] if given.tiny else [("csnn", 4, 50), ("csnn", 4, 256)]:
        for way in [*first, "ReLU, channels-last, graph", "eager neuron, NCHW"]:
            time_way(run, case, way)
    for way in WAYS:
        if way not in first and not run.is_late:
            time_way(run, large, way)
    for way in first:
        time_way(run, large, way, trains=False)
    layouts(run)
    tiles(run)
    other_checks(run)
    if not run.is_late:
        profile(run, large, "ReLU, channels-last")
    failed = report.path.with_suffix(".log").read_text().count("FAILED")
    report.say(f"done; {failed} lines with FAILED")


if __name__ == "__main__":
    main()
