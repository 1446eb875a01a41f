"""Prompts: the shipped list, the name in a prompt, captions of photos."""
