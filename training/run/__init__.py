"""A run: the loop over its steps, and what keeps it whole when it is stopped."""
