"""From a camera to whoever decodes: images in, a spool on disk, links that are slow or down."""
