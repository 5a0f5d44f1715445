"""TID2013: 24 distortion types at five levels, with MOS."""
