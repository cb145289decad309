"""Promela models of the gate's protocols, checked exhaustively by Spin.

A model is a protocol boiled down to the steps that race, with the names of the code. Each has
variants that break one rule; Spin must refute every one of them, because a model that cannot fail
proves nothing. What a model shows holds for its small bounds and for sequentially consistent
memory.
"""
