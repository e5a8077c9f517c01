"""codingbench: which input coding of a spiking neural network is better, at what cost."""

__version__ = "0.6.0"
