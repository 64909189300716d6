"""Published weights into our modules and back: lazy files, key maps, strict loading, export."""
