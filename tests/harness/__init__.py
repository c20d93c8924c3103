"""What several tests need: groups of ranks without Ray, small data sets, and processes that are looked for."""
