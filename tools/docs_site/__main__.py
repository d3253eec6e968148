"""Builds the site into site/, without a warning, or serves it while pages change: `make docs`."""

from __future__ import annotations

import argparse
import logging

from mkdocs.commands.build import build
from mkdocs.commands.serve import serve
from mkdocs.config import load_config


def main() -> None:
    """Build the site, or serve it on http://localhost:8000/ until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", nargs="?", choices=["build", "serve"], default="build")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if arguments.action == "serve":
        serve(open_in_browser=False)
        return
    config = load_config(strict=True)
    build(config)
    print(f"{config.site_dir}/index.html")


if __name__ == "__main__":
    main()
