"""The pages: report, review and study, each one HTML file made from a template (`shell.py`) and plain data."""
