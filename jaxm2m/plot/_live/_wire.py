"""State as octets: a length, JSON of that length, then the binary parts that the JSON names by offset and length."""

import json
from typing import Any


def pack(content: Any) -> bytes:
    """Write nested dicts and lists with bytes in them; numbers must be finite."""
    parts: list[bytes] = []
    total = 0

    def place(value: Any) -> Any:
        nonlocal total
        if isinstance(value, (bytes, bytearray, memoryview)):
            octets = bytes(value)
            where = total
            parts.append(octets)
            total += len(octets)
            return {"$binary": [where, len(octets)]}
        if isinstance(value, dict):
            return {name: place(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [place(inner) for inner in value]
        return value

    text = json.dumps(place(content), allow_nan=False).encode()
    return len(text).to_bytes(4, "little") + text + b"".join(parts)
