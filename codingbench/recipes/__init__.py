"""Training recipes: one TOML file each, read by :mod:`codingbench.recipes.recipe`."""
