"""`python -m anymodal`."""

from anymodal.cli import main

if __name__ == "__main__":
    main()
