"""BIQ2021: photos with distortions as they occur, with MOS."""
