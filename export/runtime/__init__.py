"""Run a bundle: image to stream to output. numpy, Pillow and the target's engine.

In a bundle this package lies in ``splitrun/`` with the files that it imports, at the same relative
places, and runs as ``python -m splitrun``. It imports neither torch nor pydantic; entropy coding is
faster with constriction.
"""
