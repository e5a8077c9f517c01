"""``codingbench new``: write the first version of a plug-in from a working template."""
