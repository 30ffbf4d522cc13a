"""`python -m cmbench`, which torchrun needs."""

from cmbench.cli.main import main

if __name__ == "__main__":
    main()
