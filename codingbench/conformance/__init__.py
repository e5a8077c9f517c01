"""Whether a plug-in keeps the contract, check by check, and what would go wrong if not."""
