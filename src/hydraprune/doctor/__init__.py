"""`hydraprune doctor`: checks of what a run needs on this machine, each with a cure.

Importing it needs only the standard library, since it is used when something else is broken.
"""
