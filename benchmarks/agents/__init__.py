"""What agents are worth: memory, tools, sight."""
