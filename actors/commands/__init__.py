"""What a verb does beyond one call into another room; actors/cli only parses and prints."""
