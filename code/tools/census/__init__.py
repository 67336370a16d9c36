"""A census of published code: what models upsample with, and what of it the module can exchange."""
