"""The smallest worlds: each shows one thing that an agent must be able to do."""
