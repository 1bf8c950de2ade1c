"""Networks: any architecture of timm, its features, and the bundle a trained one is used from."""
