"""What long work tells while it runs."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # gets how much is done, how much there is in all, and what is being done
Advance = Callable[[int], None]  # gets how much more is done
MEGABYTE = 1_000_000


class Meter:
    """Counts bytes of work that is done: hashed, copied, written.

    Attributes:
        text: what is being done.
    """

    def __init__(self, progress: Progress | None, total_bytes: int) -> None:
        """Count up to so many bytes; `progress` is told (megabytes done, megabytes in all, what is done)."""
        self.progress, self.total, self.done, self.text = progress, total_bytes, 0, ""

    def begin(self, text: str) -> None:
        """Something else is being done from here on."""
        self.text = text
        self.advance(0)

    def advance(self, num_bytes: int) -> None:
        """That many more bytes are done."""
        self.done += num_bytes
        if self.progress is not None:
            self.progress(min(self.done, self.total) // MEGABYTE, max(1, self.total // MEGABYTE), self.text)
