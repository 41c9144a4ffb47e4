"""Connect to Ray or start it; map tasks over Ray or local processes; handle workers that fail."""
