"""The server: the protocols that clients of speech models speak already, over sessions of one model, and a page."""

from lalia.server.settings import Settings

__all__ = ["Settings"]
