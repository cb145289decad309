"""The shared page: two memory-mapped files that hold what every process must agree on.

``layout`` says what stands where and who writes it, ``mapping`` makes and opens the files,
``atomics`` are the machine instructions, and one module each knows the protocol of a kind of word:
``lease``, ``level``, ``board``, ``ring``, ``progress``.
"""
