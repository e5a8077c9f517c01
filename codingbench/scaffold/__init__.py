"""``codingbench new``: writes the first version of a plug-in from a working template."""
