"""Everything that touches a venue or market data: adapters, the simulated venue, replay, generator.

Only this package may import ccxt. It stands above ``models`` and ``tripgate`` and below ``actors``.
"""
