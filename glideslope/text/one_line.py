"""An exception as one line of a message."""


def one_line(error: BaseException, max_length: int | None = 200) -> str:
    """What an exception says, on one line and cut to a length; the name of its class where it says nothing."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__
