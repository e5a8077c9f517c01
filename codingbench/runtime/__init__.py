"""The machine that a program runs on: devices, signals, provenance, configuration files."""
