"""Records of results and the content store."""
