"""A backbone, a network and an objective for ccsd, as docs/plugins.md explains them."""
