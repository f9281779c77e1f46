"""Model sources: one file each declares a source's `model` block and resolves it to a pinned model."""
