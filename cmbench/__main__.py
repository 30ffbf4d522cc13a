"""`python -m cmbench`, which torchrun needs."""

from cmbench.cli import main

if __name__ == "__main__":
    main()
