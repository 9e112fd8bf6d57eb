"""A checkpoint's folder as hubs have it: the files that count, and the checks of their fit."""
