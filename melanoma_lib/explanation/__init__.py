"""Heat maps by Grad-CAM and its kind, and what they are worth against lesion masks."""
