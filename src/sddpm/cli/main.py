"""The `sddpm` command: gathers the verbs, one file each in this folder, and turns errors into exit codes."""

import sys

from sddpm.cli import (  # noqa: F401  each verb adds itself
    average,
    convert,
    convert_ann,
    energy,
    evaluate,
    export,
    guide,
    info,
    inpaint,
    interpolate,
    moments,
    pack,
    release,
    sample,
    stats,
    train,
)
from sddpm.cli.app import app as app
from sddpm.errors import UserError


def run() -> None:
    """Entry point. A `UserError` becomes one line on stderr and exit code 2; Ctrl-C exit code 130."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
