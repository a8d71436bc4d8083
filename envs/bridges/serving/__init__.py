"""Our worlds for other programs: each world on one thread, as turns, and as tools over MCP."""
