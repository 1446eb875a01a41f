"""The judges of a video: identity, dynamics, prompt following."""
