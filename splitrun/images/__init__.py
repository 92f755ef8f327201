"""Image codecs: JPEG, WebP, AVIF, PNG, HEIC, BPG and VTM, for images of one known size."""
