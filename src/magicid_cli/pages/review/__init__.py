"""The page of `magicid review`: pairs shown blind on 127.0.0.1, and votes on them.

`showing.py` says which pairs there are and what of them may be seen, `server.py` shows them to one browser.
"""

from magicid_cli.pages.review.server import Server
from magicid_cli.pages.review.showing import Sheet, Shown, shown_pairs

__all__ = ["Server", "Sheet", "Shown", "shown_pairs"]
