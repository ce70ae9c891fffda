"""Compression: one file each, every one a function ``(model, config, texts) -> (model, report)``."""
