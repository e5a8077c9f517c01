"""Figures of a comparison as Plotly dictionaries, one module per kind of figure."""
