"""Fitting an entropy coder's integer tables to photographs; weights stay as they are.

::

    photographs ─► device half ─► symbols ─► counts, least squares ─► tables ─► coder of fewer bytes
"""
