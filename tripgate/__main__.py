"""``python -m tripgate``: the same front door as the ``tripgate`` command."""

from tripgate.launch import main

if __name__ == "__main__":
    main()
