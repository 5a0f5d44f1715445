"""A practitioner's own photos with points, one per person."""
