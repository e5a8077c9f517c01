"""The contract of a neuron model: currents over T steps to spikes of every step.

    currents [T, B, ...]  ->  spikes [T, B, ...]

``codingbench run --neurons NAME`` replaces the neurons of a backbone, and those that the coding
takes from it, by another model (:mod:`codingbench.neurons.models`).
"""

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from codingbench.neurons.declared import spiking
from codingbench.registry import Plugin

_SCALED = "threshold"


@spiking
class Neuron(nn.Module):
    """Base class of neuron models; a model defines ``forward`` and keeps no state between calls.

    Parameters that ``--neurons name[param=value]`` can set are keyword-only arguments of the
    constructor with a default. A model whose ``threshold`` is one of them also serves in layers
    that ask for a threshold of their own, such as the attention of ``spikformer``.
    """

    sub_steps: int = 1
    """D, if a spike is a whole number c from 0 to D that stands for c binary spikes in D sub-steps:
    each step is then priced as D updates, and a synapse as c accumulates."""

    label: str = ""
    """Name and parameters, as ``--neurons`` has them."""

    def extra_repr(self) -> str:
        """Return the label, so that networks of other neurons have another description."""
        return self.label

    def forward(
        self, cur: Float[Tensor, "time batch *feature"]
    ) -> Float[Tensor, "time batch *feature"]:
        """Return the spikes of all steps, from the state at rest."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(cur)")


class NeuronMaker:
    """Makes the neurons of a backbone by another model; called like its ``make_neuron``.

    Args:
        plugin: the model and its parameters.
        usual: the backbone's own ``make_neuron``. A layer that asks it for another threshold than
            its default gets that share of the model's threshold.
    """

    def __init__(self, plugin: Plugin, usual: Callable[..., nn.Module]) -> None:
        self.plugin = plugin
        self.made = 0
        self._parameters = signature(usual)

    def __call__(self, *args: Any, **settings: Any) -> nn.Module:
        """Return a new neuron.

        Raises:
            ValueError: the model refuses its parameters, or cannot have what the layer asks for.
        """
        asked = self._parameters.bind(*args, **settings).arguments
        usual = {name: self._parameters.parameters[name].default for name in asked}
        plugin = self.plugin
        for name in asked:
            if asked[name] != usual[name]:
                plugin = self._scaled(name, asked[name], usual[name])
        self.made += 1
        neuron: Neuron = plugin.build()
        neuron.label = self.plugin.label
        return neuron

    def _scaled(self, name: str, asked: Any, usual: Any) -> Plugin:
        """Return the model with the share of its threshold that a layer asks for."""
        own = dict(self.plugin.params)
        values = asked, usual, own.get(name)
        if name != _SCALED or not all(isinstance(value, int | float) for value in values):
            raise ValueError(
                f"a layer asks for a neuron with {name}={asked}, which {self.plugin.label} "
                "cannot have: only a threshold can be scaled"
            )
        params = own | {name: own[name] * asked / usual}
        return replace(self.plugin, params=tuple(sorted(params.items())))
