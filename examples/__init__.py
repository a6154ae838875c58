"""Other computations: each `computation.py` can take the place of foobar_shared/computation.py."""
