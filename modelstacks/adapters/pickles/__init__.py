"""What a pickle would do if it were loaded, found out without loading it.

containers.py finds the pickles in a file, as joblib.load, torch.load and numpy.load would; machine.py follows
the instructions of one; policy.py says what a model may be made of, and how.
"""
