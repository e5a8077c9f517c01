"""Count the operations and spikes of a network, by layer, time step and value class."""
