"""The machine a program runs on: devices, interrupts, provenance, files."""
