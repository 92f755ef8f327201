"""Names that many tests use."""

RESNET = "splittable_resnet50-fp-beta0.08"
"""Of the paper: its architecture is large, and no weights of it are carried."""
