"""Collectors behind one interface, in this process or on a Ray cluster, and what directs them."""
