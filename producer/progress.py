"""How far a long delivery has come: a bar on a terminal, elsewhere a plain line now and then."""

import sys

from tqdm import tqdm

LINE_EVERY_SECONDS = 5


class PlainLines:
    """A text stream for tqdm that writes whole lines to standard error, where a log would show its `\\r`."""

    def write(self, text: str) -> None:
        """Write what tqdm would draw over the current line as a line of its own."""
        if text.strip():
            print(text.strip(), file=sys.stderr)

    def flush(self) -> None:
        """Nothing is held back."""


def progress(total: int | None) -> tqdm:
    """A context manager whose `update()` counts one more event of `total`, or of who knows how many.

    Without a terminal the first line comes after `LINE_EVERY_SECONDS`, so short work leaves none.
    """
    if sys.stderr.isatty():
        return tqdm(total=total, unit=" events")
    of_total = "" if total is None else " of {total_fmt}"
    return tqdm(
        total=total,
        file=PlainLines(),
        mininterval=LINE_EVERY_SECONDS,
        delay=LINE_EVERY_SECONDS,
        leave=False,
        bar_format=f"{{n_fmt}}{of_total} events delivered after {{elapsed}}",
    )
