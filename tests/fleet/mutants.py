"""Devices and labs that are broken on purpose: the courses must find each of them (P4)."""

from __future__ import annotations

from tests.fleet.run import Mutant

MUTANTS: dict[str, Mutant] = {}
