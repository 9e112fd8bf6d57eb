"""A Kubernetes API server of our own, for what a chart's tests need of one.

It does what the real one does to a chart, in the order the real one does it: discovery, schemas,
admission, three-way patches by each schema's merge keys, watches, and controllers that make Pods of
Deployments, schedule them on nodes with so many CPUs and GPUs, and let each start only if all that
it mounts is there. It runs no container: a Pod that could start counts as ready. `audit` names what
a real cluster would accept and what would never work all the same.
"""
