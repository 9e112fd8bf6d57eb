"""HTTP for both apps: the ASGI stack, the server and its signals, limits for slow clients."""
