"""What a run keeps on disk: its record, settings, metrics and checkpoints."""
