"""Sizes in bytes as people read them."""

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def format_size(size_bytes: int) -> str:
    """Write a size in the largest decimal unit that fits: ``512 bytes``, ``98.6 kB``."""
    if size_bytes < 1000:
        return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
    size, unit = size_bytes / 1000, 0
    # Not 1,000.0 kB.
    while round(size, 1) >= 1000 and unit + 1 < len(_UNITS):
        size, unit = size / 1000, unit + 1
    return f"{size:,.1f} {_UNITS[unit]}"
