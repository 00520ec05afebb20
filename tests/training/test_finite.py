"""Numbers that go wrong: a training ends with one line that says where, of what, and what to try."""
