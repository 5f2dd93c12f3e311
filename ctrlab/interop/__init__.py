"""Models trained in other frameworks, compressed in place of ours. The frameworks themselves are not imported here."""
