"""The scoring side: one checkpoint and one engine; no users, tenants or caches."""
