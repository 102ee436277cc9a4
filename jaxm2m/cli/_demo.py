"""`jaxm2m demo`: the whole line on the atlas head."""


def demo() -> None:
    """The whole line on the atlas head."""
    raise NotImplementedError("demo: not there yet.")
