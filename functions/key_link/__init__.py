"""An account in another system becomes a key link at Rev.io."""
