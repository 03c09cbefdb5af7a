"""From BraTS NIfTI to chunked Zarr: vocabulary, layouts, conversion, store, splits, phantoms."""
