"""Faults, one small file each, found by name; a plan may only name what stands in ``FAULTS``."""

from collections.abc import Mapping

from chaos.faults import sigkill

FAULTS: Mapping[str, str] = {sigkill.NAME: sigkill.DESCRIPTION}
"""Name of every fault and what it does, in one line."""
