"""``codingbench new``: write the first version of a plug-in or a recipe."""
