"""`make soak`: many simulated runs, on this machine's cores or on a Dask cluster."""
