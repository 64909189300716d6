"""What every command shares: configuration, weights registry, progress."""
