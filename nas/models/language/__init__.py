"""Files of language models: a step of decoding beside the whole window, and text made by them."""
