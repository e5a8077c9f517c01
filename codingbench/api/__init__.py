"""The Python API. :mod:`codingbench` imports each part when it is first used."""
