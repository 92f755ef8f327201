"""Fitting an entropy coder's integer tables to images; weights stay as they are.

::

    images ─► device half ─► symbols ─► counts, least squares ─► tables ─► coder of fewer bytes
"""
