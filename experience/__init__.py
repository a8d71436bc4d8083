"""What happened, and what follows from it: the words, the shards, and the learning on them."""

__version__ = "0.1.0"
