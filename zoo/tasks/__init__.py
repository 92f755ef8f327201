"""Tasks beyond classification: a detector or a segmentation head on a backbone that is cut."""
