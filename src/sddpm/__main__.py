"""`python -m sddpm`, the same as `sddpm`."""

from sddpm.cli.main import run

run()
