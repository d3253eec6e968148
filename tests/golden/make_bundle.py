"""Writes bundle-1/, the golden bundle of format 1; run it only for a new format."""

from pathlib import Path

from tests.support.bundles import write_bundle

if __name__ == "__main__":
    write_bundle(Path(__file__).with_name("bundle-1"), newcomers=[3, 17])
