"""Breaking tripgate on purpose: plans of faults, the faults, the invariants, and a simulation.

One plan format serves two layers: a deterministic simulation of the pure steps (here) and the real
tree in real processes.
"""
