"""HTTP for both apps: the ASGI stack, the server and its signals, patience with slow clients."""
