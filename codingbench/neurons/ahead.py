"""Compiling the fused kernels of a network together, before its first training step.

A network needs some twenty kernels. Each takes a large part of a second to compile, mostly outside
Python, and the first training step would compile one after another. Here a copy of the network runs
once on two black images with launches that compile their kernel in other threads and run nothing.
"""

import copy
import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from types import ModuleType
from typing import Any, Final

import torch
from torch import Generator, Tensor, nn

from codingbench.neurons import fused, launch

IMAGES: Final = 2
_MOST_THREADS: Final = 32

_known: set[Hashable] = set()


def compile_kernels(
    network: nn.Module,
    images: Tensor,
    kind: Hashable,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> None:
    """Compile the kernels that training and evaluation of a network will launch.

    Whatever goes wrong here is left to the training itself, which reports it.

    Args:
        network: the network, which stays as it is: a copy runs, with its own random numbers.
        images: a batch [B, C, H, W] on the network's device.
        kind: what decides the kernels besides the layers and the images. Networks that agree in
            all of these have the same kernels, and only the first of them is run.
        autocast: makes the context of a forward pass.
    """
    kind = repr(network), images.shape[1:], images.device, kind
    if not fused.is_available(images.device) or kind in _known:
        return
    _known.add(kind)
    with suppress(Exception), _untouched(images.device), compiling():
        twin, black = copy.deepcopy(network), torch.zeros_like(images[:IMAGES])
        for training in (True, False):
            twin.train(training)
            with torch.set_grad_enabled(training), autocast():
                logits = twin(black, Generator(images.device))
            if training:
                logits.float().sum().backward()


@contextmanager
def _untouched(device: torch.device) -> Iterator[None]:
    """Restore torch's random numbers, which a network may draw from, at the end."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def compiling() -> Iterator[None]:
    """Let launches compile their kernels in other threads and run nothing; wait for all at the end.

    The tensors that kernels would write are left undefined.
    """
    with (
        ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads,
        launch.through(_Compiler(launch.kernels(), threads)),
    ):
        yield


class _Compiler:
    """Stands for the module of the kernels and compiles each specialisation once."""

    def __init__(self, module: ModuleType, threads: ThreadPoolExecutor) -> None:
        self._module, self._threads = module, threads
        self._begun: dict[Hashable, Future[None]] = {}

    def __getattr__(self, name: str) -> "_Kernel":
        return _Kernel(name, getattr(self._module, name), self._begin)

    def _begin(self, key: Hashable, compile_kernel: Callable[[], None]) -> None:
        if key not in self._begun:
            self._begun[key] = self._threads.submit(compile_kernel)


class _Kernel:
    """One kernel; called like a kernel of Triton: ``kernel[grid](*args, **constants)``."""

    def __init__(
        self, name: str, kernel: Any, begin: Callable[[Hashable, Callable[[], None]], None]
    ) -> None:
        self._name, self._kernel, self._begin = name, kernel, begin

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def compile_ahead(*args: Any, **constants: Any) -> None:
            kinds = map(_specialisation, self._kernel.params, args)
            key = self._name, *kinds, *sorted(constants.items())

            def compile_kernel() -> None:
                with launch.on_device(args[0]):
                    compiled = self._kernel.warmup(*args, grid=grid, **constants)
                    _ = compiled.run  # compiles and loads the code that launches it

            self._begin(key, compile_kernel)

        return compile_ahead


def _specialisation(parameter: Any, value: Any) -> Hashable:
    """Return the properties of an argument for which Triton makes a kernel of its own."""
    if isinstance(value, Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, int) and not parameter.do_not_specialize:
        return value == 1, value % 16 == 0
    return (type(value),)
