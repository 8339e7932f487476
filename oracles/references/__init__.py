"""Committed reference tables and the script that regenerates them; read them with `oracles.reference.load`."""
