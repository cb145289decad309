"""The simulated venue: a process of its own that keeps its own books, as an exchange does."""
