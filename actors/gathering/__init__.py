"""Collecting without learning: episodes of any policy for a store, and evaluations."""
