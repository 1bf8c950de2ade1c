"""The dataset: its table and files, the split, pixels, augmentation, and the generated sample."""
