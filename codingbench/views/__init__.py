"""Show results: tables for the terminal, JSON, CSV, Markdown and SVG, one file per command."""
