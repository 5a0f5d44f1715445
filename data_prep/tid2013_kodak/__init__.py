"""TID2013 re-made from Kodak's images: images by calibrated PSNR, scores as published."""
