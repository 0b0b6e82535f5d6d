"""The network and its geometry: what training and serving share."""
