"""The command line: the only code that knows typer, rich and exit codes."""
