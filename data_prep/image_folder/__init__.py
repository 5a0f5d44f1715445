"""Any folder of images as an unlabeled set."""
