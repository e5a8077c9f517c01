"""How much accuracy finished cells keep under perturbation, from their kept weights."""
