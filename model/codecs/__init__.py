"""Codecs between media and latents, and what builds them."""
