"""Annotated images: what lies in a folder, what its labels mean, and what is held out."""
