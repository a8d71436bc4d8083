"""The loop of a collector: leases, slots, and the agents that answer in them."""
