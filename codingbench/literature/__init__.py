"""What others have published: their numbers, and the protocols behind them."""
