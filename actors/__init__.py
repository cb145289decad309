"""One file per actor: thin shells around pure steps, all alike.

``runtime`` is the one module that imports tractor, ``entry`` the one function a tree can call in
its children, ``service`` what every actor is given. The rest is an actor each.
"""
