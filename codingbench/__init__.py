"""codingbench: which input coding of a spiking neural network is better, and at what cost.

    import codingbench as cb

    runs = cb.run(encoders=["direct", "latency"], T=[2, 4], seeds=3)
    runs.leaderboard()  # a pandas.DataFrame
    cb.load("results").energy("memory")

Every name below is imported when it is first used, so ``import codingbench`` itself is quick and
imports neither torch nor pandas.

===================================  ==============================================================
:func:`run`                          train and measure a grid of cells
:func:`load`                         read a results folder
:func:`leaderboard`                  rank the cells of a results folder
:func:`compare`                      compare codings statistically, pair by pair
:func:`inspect`                      look at codings before any training
:func:`check`                        check a coding or backbone against its contract
:class:`Results`                     what ``run`` and ``load`` return
:class:`Grid`, :class:`Store`        a grid of cells; a results folder
:class:`PixelEncoder`                base class of codings of pixels
:class:`FeatureEncoder`              base class of codings of the stem's features
:class:`Encoder`, :class:`Backbone`  base classes of all codings and of all backbones
:class:`Neuron`                      base class of neuron models
:class:`Setting`, :class:`Task`      what encoders and backbones are given
:func:`register_encoder`             class decorator: give a coding a name
:func:`register_backbone`            class decorator: give a backbone a name
:func:`register_neuron`              class decorator: give a neuron model a name
===================================  ==============================================================

The energy conventions are in the module :mod:`codingbench.energy`; the energies of cells are
``load(folder).energy(convention)``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from codingbench import energy as energy
    from codingbench.api.examining import check as check
    from codingbench.api.examining import inspect as inspect
    from codingbench.api.results import Results as Results
    from codingbench.api.results import compare as compare
    from codingbench.api.results import leaderboard as leaderboard
    from codingbench.api.results import load as load
    from codingbench.api.running import run as run
    from codingbench.backbone import Backbone as Backbone
    from codingbench.cells.grid import Grid as Grid
    from codingbench.encoder import Encoder as Encoder
    from codingbench.encoder import FeatureEncoder as FeatureEncoder
    from codingbench.encoder import PixelEncoder as PixelEncoder
    from codingbench.encoder import Setting as Setting
    from codingbench.encoder import Task as Task
    from codingbench.neurons.neuron import Neuron as Neuron
    from codingbench.registry import register_backbone as register_backbone
    from codingbench.registry import register_encoder as register_encoder
    from codingbench.registry import register_neuron as register_neuron
    from codingbench.store.folder import Store as Store

__version__ = "0.8.3"

_HOMES: Final = {
    "run": "codingbench.api.running",
    "load": "codingbench.api.results",
    "leaderboard": "codingbench.api.results",
    "compare": "codingbench.api.results",
    "Results": "codingbench.api.results",
    "inspect": "codingbench.api.examining",
    "check": "codingbench.api.examining",
    "Grid": "codingbench.cells.grid",
    "Store": "codingbench.store.folder",
    "Encoder": "codingbench.encoder",
    "PixelEncoder": "codingbench.encoder",
    "FeatureEncoder": "codingbench.encoder",
    "Setting": "codingbench.encoder",
    "Task": "codingbench.encoder",
    "Backbone": "codingbench.backbone",
    "Neuron": "codingbench.neurons.neuron",
    "register_encoder": "codingbench.registry",
    "register_backbone": "codingbench.registry",
    "register_neuron": "codingbench.registry",
}
"""Public name -> the module that defines it. None of them is the name of a submodule."""


def __getattr__(name: str) -> Any:
    if name == "energy":  # the module
        return import_module("codingbench.energy")
    if name not in _HOMES:
        raise AttributeError(f"module 'codingbench' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "energy"})
