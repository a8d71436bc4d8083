"""How Ray is started on this machine, or a cluster joined."""
