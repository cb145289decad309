"""Pure state machines: ``step(state, message, now) -> (state, effects)``, one subject per file.

Nothing here reads a clock, draws a random number or does I/O, so the same step runs in the tree,
in a replay of the log and in the deterministic simulator. State is frozen: a step that raises
leaves its caller holding the state from before.
"""
