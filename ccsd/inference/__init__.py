"""From a network and images of any size and spacing to region probabilities and label maps."""
