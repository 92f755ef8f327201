"""Bottlenecks: from an encoder's latent to the tensors on the wire, and back. Needs torch."""
