"""Language models that others trained, read from a folder: GPT-2's and Llama's shapes."""
