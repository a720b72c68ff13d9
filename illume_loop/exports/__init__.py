"""Taking a run's data elsewhere: samples, assessments and training rows, in formats that others read (writing.py)."""
