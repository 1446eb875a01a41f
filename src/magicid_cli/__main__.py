"""`python -m magicid_cli`."""

import sys

from magicid_cli.cli.app import main

sys.exit(main())
