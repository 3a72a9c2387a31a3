"""What a KV cache holds, told position by position, so that it can be found again, on disk too."""
