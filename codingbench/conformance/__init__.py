"""Checks that a plug-in keeps the contract on which comparisons of codings rest."""
