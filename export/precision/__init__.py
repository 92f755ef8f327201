"""Precisions below fp32: how a graph is lowered, and what that changes."""
