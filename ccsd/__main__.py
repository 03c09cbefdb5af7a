"""`python -m ccsd` is the command line."""

from ccsd.cli import main

main()
