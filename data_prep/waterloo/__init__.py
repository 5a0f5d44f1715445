"""The Waterloo Exploration Database with the costly levels of its distortion ladders."""
