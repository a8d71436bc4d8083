"""What one collector costs, and how well it waits."""
