"""Data that people bring: image-text pairs, dialogues, edits and texts, read, tokenised once and mixed for training."""
