"""Any folder of pristine images with the costly levels of their distortion ladders."""
