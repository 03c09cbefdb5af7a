"""One Zarr store per case: its attributes, writing it, and reading boxes from it."""
