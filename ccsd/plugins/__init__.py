"""Networks and objectives from plugins: their interface, how they are found, and a test that their authors can run."""
