"""``python -m splitzoo.export.runtime --bundle DIR …``: the runtime without the bundle's own copy."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
