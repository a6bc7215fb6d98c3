"""Bundles: everything that a deployment needs in one folder or one `.emca` file, which cannot change unnoticed."""
