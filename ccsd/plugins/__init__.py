"""Networks and objectives of others: what they keep to, how they are found, and a test that their authors can run."""
