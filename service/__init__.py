"""The HTTP service: an image of any size in, a mask of the same size out."""
