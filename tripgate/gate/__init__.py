"""The gate: hard limits reserved atomically across processes, asked before every order."""
