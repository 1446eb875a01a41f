"""Prompts: the shipped list and its choice, the name in a prompt, captions of photos."""
