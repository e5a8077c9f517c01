"""One cell of a grid, from its settings to the rows of its tables."""
