"""Worlds with several agents: the form that they speak in."""
