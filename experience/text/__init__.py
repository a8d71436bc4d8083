"""Text as all parts read and write it: strict JSON, and the guess behind "did you mean"."""
