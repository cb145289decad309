"""Replay: the log decides every decision again, from itself, and rebuilds what was held.

A second opinion written apart from the gate: plain integers, no kernel, no page. It knows the
format of the records and the rules of docs/gate.md, and nothing of how the gate computes them.
"""
