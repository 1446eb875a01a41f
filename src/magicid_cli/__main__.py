"""`python -m magicid_cli`."""

from magicid_cli.cli.app import main

raise SystemExit(main())
