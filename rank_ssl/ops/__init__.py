"""Pure functions on NumPy images, uint8 RGB [H, W, 3]: decoding, crops, distortions, densities."""
