"""Neuron models for ``codingbench run --neurons``, one file each, named like the model."""
