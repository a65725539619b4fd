"""All that knows Ray: the cluster of a job, its graph of stages, and what they count."""
