"""sort3d."""
