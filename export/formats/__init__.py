"""How a graph is written to a file, and which engine runs that. One file for each kind."""
