"""Precisions below fp32: how a device graph is lowered, and what that changes."""
