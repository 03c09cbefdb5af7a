"""Phantom heads: anatomy, tumour and MR signal as smooth functions of position."""
