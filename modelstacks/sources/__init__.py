"""Model sources: one file each declares a source's `model` block and knows how to pin and fetch its files."""
