"""The web page of a run: look at what happens, review samples, promote and roll back."""
