"""Kills on the audit path: producers and the audit writer die, and no record is lost or doubled."""
