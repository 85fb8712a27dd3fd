"""What tests share: real server processes, bytes to send, and the two ways to reach a BlobStore."""
