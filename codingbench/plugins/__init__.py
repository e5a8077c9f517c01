"""What the registry is built on: names and parameters, code and entry points of plug-ins."""
