"""Trained networks for other tools: a torch file with a model card, or a NIR graph."""
