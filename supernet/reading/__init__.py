"""Reading a torch module into one normal form: ATen operations between plain layers."""
