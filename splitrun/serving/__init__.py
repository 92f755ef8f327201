"""The edge server: ``splitrun serve BUNDLE…``, streams in by HTTP, predictions out as JSON.

::

    request ─► bodies ─► repeats ─► models ─► decoders ─► batches ─► edge graph ─► answers
               limits    known keys  by id     threads     up to --max-batch        JSON

Starlette and uvicorn speak HTTP on one thread (``app``, ``kserve``, ``server``); entropy decoding
and the engine have threads of their own, beside it.
"""
