"""Hosts: where environments live while a collector steps them, each on one thread of its own."""
