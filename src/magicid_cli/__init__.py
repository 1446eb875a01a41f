"""magicid: from a few photos of one person, videos that keep the likeness and move."""

__version__ = "0.1.0"
