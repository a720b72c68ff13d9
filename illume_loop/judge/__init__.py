"""The judge: readings of images, questions, critiques, the other assessors, and how far a judge can be trusted."""
