"""Leaky integrate-and-fire neurons that compute all time steps in one operation."""

from codingbench.neurons.backends import use_backend
from codingbench.neurons.declared import spiking
from codingbench.neurons.leaky import MultiStepLeaky, is_known_binary, over_time
from codingbench.neurons.neuron import Neuron
from codingbench.neurons.recurrence import Rule
from codingbench.neurons.surrogates import rectangle, triangle

__all__ = [
    "MultiStepLeaky",
    "Neuron",
    "Rule",
    "is_known_binary",
    "over_time",
    "rectangle",
    "spiking",
    "triangle",
    "use_backend",
]
