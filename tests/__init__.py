"""The tests; helpers that several of them use are modules of this package."""
