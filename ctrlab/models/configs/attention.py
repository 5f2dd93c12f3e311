"""Settings of architectures that weigh features by each other: attention, masks, gates."""
