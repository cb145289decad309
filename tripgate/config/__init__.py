"""The configuration: ``structs`` say what tripgate.toml may hold, ``reader`` reports all errors.

``rules`` judge single values, ``checks`` whole files, ``overrides`` the environment; ``shape`` and
``reference`` print it, and ``lines`` finds a key's line for a message.
"""
