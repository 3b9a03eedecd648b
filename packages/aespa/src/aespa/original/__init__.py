"""What the published numbers were made with, where it differs from the corrected behaviour."""
