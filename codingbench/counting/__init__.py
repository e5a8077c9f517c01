"""What a network does, counted: operations and spikes by layer, step and value class."""
