"""What a training stage minimises."""
