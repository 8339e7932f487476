"""Committed reference tables and the script that regenerates them; read them with `oracles.reference.load`.

Lives here: the problems that the tables answer (`problems`), the script (`regenerate`, `python -m
oracles.references.regenerate`), and the tables with their digits, errors and hashes. May touch: `oracles.reference`,
whose arbitrary precision makes the numbers. No law may read them: they are what laws are held against, and tests read
them.
"""
