"""Names and parameters, code and entry points of plug-ins; the registry builds on them."""
