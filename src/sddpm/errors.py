"""The one error that is the user's to mend."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong and what would be right.

    The command line prints it as ``error: ...`` and exits with code 2; in Python it is a `ValueError`.
    """
