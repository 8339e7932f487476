"""What the tests share: one comparison, the Hypothesis strategies and the named problems."""
