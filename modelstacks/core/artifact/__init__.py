"""The artifact: a model's files, what they are, packing, unpacking, and what is refused in them."""
