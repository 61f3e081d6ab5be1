"""`make soak`: runs many simulated tests, on this machine's cores or on a Dask cluster."""
