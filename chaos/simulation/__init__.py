"""Deterministic simulation: the real steps of keeper and breaker in a made-up world, from one seed.

The steps, their messages and their effects are the tree's own; market, venue, strategy, page and
log are small models of what stands around them. Every draw comes from ``random.Random(seed)``, with
whole numbers only, so a run is the same to the bit on every machine.
"""
