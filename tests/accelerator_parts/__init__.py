"""What `tests/accelerator.py` does on a machine with a GPU: a plan of jobs, each a generator of rows."""
