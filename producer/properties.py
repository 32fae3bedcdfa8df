"""Settings of a Kafka client from a file: `key=value` lines, as `kcat -F` reads them."""

from pathlib import Path


def read_properties(path: Path) -> dict[str, str]:
    """The librdkafka properties in a file, where `#` begins a comment line.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line has no `=`. The message does not quote the line, since it may hold a password.
    """
    properties = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise ValueError(f"{path}, line {number}: not key=value")
        properties[key.strip()] = value.strip()
    return properties
