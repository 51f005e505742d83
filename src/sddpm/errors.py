"""The one error that is the user's to mend."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong and what would be right.

    Arguments are named as Python has them, in backticks: `samples`, or with a value `preprocessing=clean-fid`. The
    command line prints the line as ``error: ...``, with its options in their place (`sddpm.cli.arguments`), and exits
    with code 2; in Python it is a `ValueError`.
    """


def reason(error: BaseException) -> str:
    """What another library's exception says, as a part of one line: at most 200 letters, or else its class."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here (PyTorch has no exception of its own for the latter)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
