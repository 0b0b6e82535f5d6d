"""Other ways to serve the same network, as their users would write them."""
