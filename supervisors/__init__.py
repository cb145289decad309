"""The tree: what is started, who watches it, and what happens when it dies.

``child_spec`` and ``strategy`` are pure; ``supervisor`` runs one trio task per child; ``tree`` is
the only place that names the shape; ``page_setup`` makes the page from config and venue.
"""
