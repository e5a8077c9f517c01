"""One training loop and its parts: augmentation, schedule, evaluation, checkpoints, devices."""
