"""`jaxm2m doctor`: what this machine has, and how long things will take on it."""


def doctor() -> None:
    """What this machine has, and how long things will take on it."""
    raise NotImplementedError("doctor: not there yet.")
