"""`python -m ablate.cli`, for where the script `ablate` is not on the path."""

from ablate.cli import main

main()
