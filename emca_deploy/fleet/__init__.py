"""A fleet: the workers of a Dask cluster, what each can do, and requests that run on them."""
