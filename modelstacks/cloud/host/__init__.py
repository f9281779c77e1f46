"""Processes, images and ports of this machine, and the HTTP between them."""
