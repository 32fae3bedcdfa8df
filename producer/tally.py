"""How many entries of a source did not become events, and why."""

from collections import Counter


class Tally:
    """Counts refused entries by reason, and keeps one example of each reason for a person to act on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def refuse(self, reason: str, example: str) -> None:
        """Count one entry under `reason`; the first `example` of a reason is kept."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, example)

    def lines(self) -> list[str]:
        """One line per reason, the most frequent first."""
        return [
            f"{count} refused: {reason} (first: {self.examples[reason]})" for reason, count in self.counts.most_common()
        ]
