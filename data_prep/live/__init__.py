"""LIVE release 2: 779 images of five distortion types with realigned DMOS."""
