"""Plain C of a packed low-bit model, for microcontrollers."""
