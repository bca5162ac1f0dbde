"""Writers: requests with messages and images in, texts in the same order out."""
