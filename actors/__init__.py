"""Who acts: the main loop, the pool of collectors, the agent and its engines, the command."""
