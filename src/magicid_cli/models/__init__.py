"""Model families: one file each, the only users of diffusers."""
