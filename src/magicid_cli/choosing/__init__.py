"""Which photos are used, and what would make them better: measured, compared with one another, and said in words.

`measures.py` looks at one photo, `looking.py` gives it a verdict, `comparing.py` compares the photos with one another
and chooses among them, `advice.py` says what they lack as a whole. Nothing here reads or writes an identity.
"""
