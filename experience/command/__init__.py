"""What a command of ours needs in every package: guarded output, its ending, others' errors."""
