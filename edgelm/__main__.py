"""``python -m edgelm``."""

from __future__ import annotations

from edgelm.cli import main

if __name__ == "__main__":
    main()
