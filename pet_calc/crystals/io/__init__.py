"""Files of property models and generators."""
