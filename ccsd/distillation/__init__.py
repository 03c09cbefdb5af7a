"""The objective: what the sets of modalities learn from the labels and from one another."""
