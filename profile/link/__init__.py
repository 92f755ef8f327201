"""The time from an image to its answer over a link: both halves, a paced socket, a plot."""
