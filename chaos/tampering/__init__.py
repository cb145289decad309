"""Tampering: every way known to change a log behind its writer's back, and what notices it."""
