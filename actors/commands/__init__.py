"""What a verb does where it is more than one call into another room; actors/cli only parses and prints."""
