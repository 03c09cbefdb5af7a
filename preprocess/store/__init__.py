"""One Zarr store per case: its attributes, writing it, reading boxes of it."""
