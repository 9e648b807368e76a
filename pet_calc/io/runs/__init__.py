"""What a run writes: output folders, provenance, summaries."""
