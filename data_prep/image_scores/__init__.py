"""Any folder of images with a table of quality scores."""
