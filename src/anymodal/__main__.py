"""`python -m anymodal`."""

from anymodal.cli.main import main

if __name__ == "__main__":
    main()
