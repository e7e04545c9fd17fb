"""What a run is recorded by beside its own files, one module each; a client is imported only where it is chosen."""
