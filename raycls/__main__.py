"""`python -m raycls` is `raycls`."""

from raycls.cli.app import main

if __name__ == "__main__":
    main()
