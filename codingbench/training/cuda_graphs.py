"""Capturing functions as CUDA graphs."""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import torch
from torch import Generator, nn

from codingbench.backbone import Network
from codingbench.training.graphs import EAGER_CALLS, Function, Replaying, Tensors

_SYNC_WARNING: Final = "synchronizing CUDA operation"
_PROTOTYPE_WARNING: Final = "Synchronization debug mode is a prototype"


def replaying(
    network: nn.Module, generators: Sequence[Generator], eager_calls: int = EAGER_CALLS
) -> Replaying:
    """Return a runner that replays CUDA graphs of the functions of a network.

    Args:
        generators: all generators that the functions draw from, besides torch's default one.
        eager_calls: as in :class:`.Replaying`.
    """
    parts = [type(part).__name__ for part in network.children()]
    name = " and ".join(parts) if isinstance(network, Network) else type(network).__name__
    device = next(network.parameters()).device
    return Replaying(CudaRecorder(device, generators), network, name, eager_calls)


class NoRoom(Exception):
    """The GPU has too little memory for a graph beside eager steps."""


class CudaRecorder:
    """Captures functions on one GPU; all graphs share one pool of memory.

    Sharing is safe because the graphs run one after another on one stream, each writes whatever it
    reads from the pool, and callers copy the outputs before the next replay.

    Args:
        device: the GPU.
        generators: all generators that the functions draw from, besides torch's default one.
    """

    def __init__(self, device: torch.device, generators: Sequence[Generator]) -> None:
        self._device = device
        index = torch.cuda.current_device() if device.index is None else device.index
        self._generators = [torch.cuda.default_generators[index], *generators]
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the capturing stream, ordered before and after the work of the current stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def rehearse(self, function: Function, inputs: Tensors) -> tuple[Tensors, str | None]:
        """Run the function and find the first place where it waits for the GPU."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = function(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        reason = None
        for warning in caught:
            message = str(warning.message)
            if _SYNC_WARNING in message:
                place = f"{Path(warning.filename).name}, line {warning.lineno}"
                reason = reason or f"it waits for the GPU ({place})"
            elif _PROTOTYPE_WARNING not in message:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return outputs, reason

    def record(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        """Capture the function.

        Raises:
            NoRoom: the GPU has too little memory.
            Exception: a failed capture may raise anything; eager calls still work afterwards.
        """
        self._check_room()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        states = [generator.get_state() for generator in self._generators]
        is_collecting = gc.isenabled()
        gc.disable()  # a collection might destroy an older graph or an event
        try:
            with self.aside(), _capturing(graph, self._pool, self._stream):
                outputs = function(*inputs)
        except BaseException:
            self._repair(states)
            raise
        finally:
            if is_collecting:
                gc.enable()
        self._graphs.append(graph)

        def replay() -> Tensors:
            graph.replay()
            return outputs

        return replay

    def release(self) -> None:
        """Free the graphs after they have finished."""
        if self._graphs:
            torch.cuda.synchronize(self._device)
            self._graphs.clear()

    def _check_room(self) -> None:
        """Refuse the first graph if its memory and that of an eager step do not fit together."""
        if self._graphs:
            return
        held = torch.cuda.memory_allocated(self._device)
        step = torch.cuda.max_memory_allocated(self._device) - held
        free, _ = torch.cuda.mem_get_info(self._device)
        free += torch.cuda.memory_reserved(self._device) - held
        if free < 2 * step:
            raise NoRoom(
                f"a step takes {step / 2**20:,.0f} MiB, and a graph as much again; "
                f"{free / 2**20:,.0f} MiB are free"
            )

    def _repair(self, states: Sequence[torch.Tensor]) -> None:
        """Undo the effects of a failed capture, which torch does not do itself."""
        for generator, state in zip(self._generators, states, strict=True):
            fresh = Generator(self._device)
            fresh.set_state(state)
            # torch still marks the old state as being captured and refuses to draw from it
            generator.graphsafe_set_state(fresh)
        end_allocating = getattr(torch._C, "_cuda_endAllocateToPool", None)
        with suppress(Exception):  # it may have ended already
            if end_allocating:
                end_allocating(self._stream.device_index, self._pool)
        self._pool = torch.cuda.graph_pool_handle()


def _capturing(
    graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream
) -> "torch.cuda.graph":
    """Capture into ``graph`` while other threads, such as one that pins images, may use the GPU."""
    return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
