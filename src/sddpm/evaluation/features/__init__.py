"""Feature networks: images in, vectors out."""
