"""What a user reads: the terminal, progress, errors."""
