"""Programs that run in environments of their own; see :mod:`splitzoo.export.environments`."""
