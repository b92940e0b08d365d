"""What drops images without a classifier: words in captions, detectors from outside."""
