"""Files from elsewhere, judged before anything loads them."""
