"""Training data that users bring: image-text pairs, dialogues, edits and texts.

The rows are read, tokenised once and mixed for training.
"""
