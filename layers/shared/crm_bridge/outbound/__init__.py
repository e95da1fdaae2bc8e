"""Everything that leaves the bridge for a vendor."""
