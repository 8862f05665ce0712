"""The house's own memory, `history.db`: what it holds and how to ask it; `writer/outputs/history.py` alone writes it.

Every series is cut into hours. An hour is kept as fine as its age allows: every reading, then minutes, then five
minutes, and for ever as one bucket. Each width is computed from the finest that is left, so it does not matter in which
order readings came. What came last lies in a journal until it is folded into its hours, together with that of others:
a card wears by the page, and a commit that touches one page is the cheapest there is.
"""
