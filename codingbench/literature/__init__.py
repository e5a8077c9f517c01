"""Published results of others, and the protocols that gave them."""
