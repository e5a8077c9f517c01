"""Exports of trained networks for other tools: a torch file or a NIR graph, with a model card."""
