"""A backbone, a network and an objective for ccsd, as docs/how-to/plugins.md explains them."""
