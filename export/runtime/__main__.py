"""``python -m splitzoo.export.runtime --bundle DIR …``: not the bundle's own copy."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
