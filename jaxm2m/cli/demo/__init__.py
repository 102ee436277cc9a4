"""`jaxm2m demo`: the whole line on the atlas head, with figures and a report."""

from jaxm2m.cli.demo._command import demo

__all__ = ["demo"]
