"""Formats: how a graph is written to a file, and which engine runs it. One file for each kind."""
