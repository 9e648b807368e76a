"""Training of property models and generators."""
