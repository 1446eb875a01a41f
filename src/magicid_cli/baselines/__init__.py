"""The methods that MagicID is compared with; `registry.py` says what each is, one file holds each."""
