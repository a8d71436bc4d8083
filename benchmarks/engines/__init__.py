"""What engines cost: turns with a history, sharing one model, and pushing new weights."""
