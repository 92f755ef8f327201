"""Context coding: each symbol is coded under the table that its decoded neighbours pick.

There are two predictors, on one skeleton (order of the places, tables, loops of coding):

- ``sparse``, for latents, most of whose symbols are 0: all channels of a pass at once, each from
  sums over its own neighbours, with a hyperprior's scales where there are any.
- ``dense``, for a quantiser's planes: channel after channel, each from single neighbours of its
  whole group of channels, with weights of their own near the border and tables near the floor.

One coder with options cannot serve both at the same bytes: they differ in what counts outside the
image (0, or the nearest place inside), in when channels are coded (together, or one by one) and in
what picks the row beside the spread (the mean's fraction, or a low mean). Each option would have
one user. Nor would it be as fast: on one core the dense coder takes 4 µs for a symbol, the sparse
one 0.04 µs; its bar, 0.8 of CompressAI's time, is at as much (``benchmarks/context_coding.py``).
"""
