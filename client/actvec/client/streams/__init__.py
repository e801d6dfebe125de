"""The streams of vectors and of means, whatever breaks under them."""
