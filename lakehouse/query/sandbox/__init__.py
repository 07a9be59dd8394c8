"""SQL from strangers: a process that has dropped everything it does not need, and a gate inside it."""
