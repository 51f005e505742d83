"""The error for problems that the user can fix."""


class UserError(ValueError):
    """Bad input: one line that says what is wrong and how to fix it.

    Arguments have their Python names, in backticks: `samples`, or with a value `preprocessing=clean-fid`. The command
    line prints the line as ``error: ...``, with its options instead (`sddpm.cli.arguments`), and exits with code 2; in
    Python it is a `ValueError`.
    """


def reason(error: BaseException) -> str:
    """The message of another library's exception, as a part of one line: at most 200 characters, or else its class."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU (PyTorch has no exception class for the latter)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
