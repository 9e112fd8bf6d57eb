"""The stream: requests as lines of one body, answered as they finish, behind all other requests."""
