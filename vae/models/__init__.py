"""Model families, one file each, behind the interface in `vae.models.base`."""
