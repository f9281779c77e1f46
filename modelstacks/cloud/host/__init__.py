"""This machine: processes, images, ports, and HTTP as it is spoken between them."""
