"""A bundle: everything that turns raw rows into probabilities, in one folder."""
