"""`hydraprune doctor`: what a run would find here, looked at one by one, and what to do about it.

Nothing but the standard library is needed to import it: it is asked when something else is broken.
"""
