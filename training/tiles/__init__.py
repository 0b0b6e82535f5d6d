"""From annotated images to training tiles: stored, weighted, deformed."""
