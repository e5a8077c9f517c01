"""How results are shown: tables for the terminal, JSON, CSV, Markdown, SVG."""
