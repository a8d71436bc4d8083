"""One engine that many collectors share."""
